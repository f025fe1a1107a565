//! The calls about apps, projects, hardware and domains. None of them has an id to be repeated
//! under: a write is asked for once, and whoever gets no answer looks whether it was done, or names
//! the revision that it rests on when asking again.

use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::client::{Client, Error, LONG_PATIENCE, PATIENCE, Repeat};
use super::proto;
use super::proto::app_service_client::AppServiceClient;
use super::proto::domain_service_client::DomainServiceClient;
use super::proto::hardware_service_client::HardwareServiceClient;
use super::proto::project_service_client::ProjectServiceClient;

/// One method of [`Client`]: what it is, its name, its service, the call, whether it may be
/// repeated, what goes in and what comes out.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $service:ident.$call:ident($asked:ident) -> $told:ident, $repeat:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`Error`]
                pub async fn $name(&self, message: proto::$asked) -> Result<proto::$told, Error> {
                    async fn call(
                        channel: Channel,
                        request: Request<proto::$asked>,
                    ) -> Result<Response<proto::$told>, Status> {
                        let service = $service::new(channel);
                        let mut service = service.max_decoding_message_size(super::client::MAX_ANSWER);
                        service.$call(request).await
                    }
                    // Where DNS or an app is asked, that may take its time.
                    let patience = match stringify!($name) {
                        "deploy" | "check_domain" | "advance" => LONG_PATIENCE,
                        _ => PATIENCE,
                    };
                    let channel = self.channel();
                    self.ask(&channel, stringify!($name), patience, Repeat::$repeat, message, call).await
                }
            )*
        }
    };
}

calls! {
    /// Judges an app, and deploys it unless it is a dry run.
    deploy: AppServiceClient.deploy(DeployRequest) -> DeployResponse, Never;
    /// The last deployments of all names.
    apps: AppServiceClient.list(ListAppsRequest) -> ListAppsResponse, Freely;
    /// The last deployment of one name.
    app: AppServiceClient.get(AppRequest) -> App, Freely;
    /// Says that an app has gone on in its life.
    advance: AppServiceClient.advance(AdvanceRequest) -> App, Freely;
    /// Creates a project.
    create_project: ProjectServiceClient.create(ProjectRequest) -> Project, Never;
    /// All projects.
    projects: ProjectServiceClient.list(ListProjectsRequest) -> ListProjectsResponse, Freely;
    /// One project.
    project: ProjectServiceClient.get(ProjectRequest) -> Project, Freely;
    /// Starts the clock of an unpaid invoice.
    unpaid: ProjectServiceClient.unpaid(UnpaidRequest) -> Project, Never;
    /// Stops that clock.
    paid: ProjectServiceClient.paid(ProjectRequest) -> Project, Never;
    /// Suspends a project.
    suspend: ProjectServiceClient.suspend(ProjectRequest) -> Project, Freely;
    /// Lets a suspended project deploy again.
    resume: ProjectServiceClient.resume(ProjectRequest) -> Project, Never;
    /// Books hardware.
    book: HardwareServiceClient.book(HardwareRequest) -> Hardware, Never;
    /// Drops hardware.
    drop_hardware: HardwareServiceClient.drop(HardwareRequest) -> Hardware, Never;
    /// What a project has.
    hardware: HardwareServiceClient.list(ProjectRequest) -> ListHardwareResponse, Freely;
    /// All domains.
    domains: DomainServiceClient.list(ListDomainsRequest) -> ListDomainsResponse, Freely;
    /// One domain.
    domain: DomainServiceClient.get(DomainRequest) -> Domain, Freely;
    /// Asks DNS where a domain leads.
    check_domain: DomainServiceClient.check(DomainRequest) -> DomainCheck, Freely;
}
