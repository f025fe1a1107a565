//! `ProjectService` and `HardwareService`.

use tonic::{Code, Request, Response, Status};
use tracing::info;

use super::convert::{self, field};
use super::{Answer, Apps, refused, token};
use crate::control::proto::hardware_service_server::HardwareService;
use crate::control::proto::project_service_server::ProjectService;
use crate::control::{proto, status};
use crate::registry::hardware::Seats;
use crate::registry::names::{HardwareName, ProjectName};
use crate::registry::project::Project;
use crate::registry::record::Held;
use crate::source::instant;

#[tonic::async_trait]
impl ProjectService for Apps {
    async fn create(&self, request: Request<proto::ProjectRequest>) -> Answer<proto::Project> {
        let registrar = self.registrar()?;
        let (message, by, now) = self.write(request)?;
        let name = field("name", &message.name)?;
        told(&by, "created", registrar.create_project(&name, &token()?, now).await)
    }

    async fn list(
        &self,
        _: Request<proto::ListProjectsRequest>,
    ) -> Answer<proto::ListProjectsResponse> {
        let projects = self.registrar()?.projects().await.map_err(|error| refused(&error))?;
        let projects = projects.iter().map(convert::project).collect();
        Ok(Response::new(proto::ListProjectsResponse { projects }))
    }

    async fn get(&self, request: Request<proto::ProjectRequest>) -> Answer<proto::Project> {
        let name = field("name", &request.get_ref().name)?;
        let project = self.registrar()?.project(&name).await.map_err(|error| refused(&error))?;
        Ok(Response::new(convert::project(&project)))
    }

    async fn unpaid(&self, request: Request<proto::UnpaidRequest>) -> Answer<proto::Project> {
        let registrar = self.registrar()?;
        let (message, by, now) = self.write(request)?;
        let name = field("name", &message.name)?;
        let since = match message.since.as_str() {
            "" => now,
            text => instant::from_text(text)
                .map_err(|error| status::told(Code::InvalidArgument, &format!("since: {error}")))?,
        };
        told(&by, "unpaid", registrar.unpaid(&name, since, (now, message.if_revision)).await)
    }

    async fn paid(&self, request: Request<proto::ProjectRequest>) -> Answer<proto::Project> {
        let registrar = self.registrar()?;
        let (message, by, _) = self.write(request)?;
        let name = field("name", &message.name)?;
        told(&by, "paid", registrar.paid(&name, message.if_revision).await)
    }

    async fn suspend(&self, request: Request<proto::ProjectRequest>) -> Answer<proto::Project> {
        let registrar = self.registrar()?;
        let (message, by, now) = self.write(request)?;
        let name = field("name", &message.name)?;
        told(&by, "suspended", registrar.suspend(&name, (now, message.if_revision)).await)
    }

    async fn resume(&self, request: Request<proto::ProjectRequest>) -> Answer<proto::Project> {
        let registrar = self.registrar()?;
        let (message, by, now) = self.write(request)?;
        let name = field("name", &message.name)?;
        told(&by, "resumed", registrar.resume(&name, (now, message.if_revision)).await)
    }
}

/// Logs what became of a project, and answers with it.
fn told(
    by: &str,
    what: &str,
    project: Result<Held<Project>, crate::registrar::Error>,
) -> Answer<proto::Project> {
    let project = project.map_err(|error| refused(&error))?;
    info!(%by, project = %project.record.name, what, "project");
    Ok(Response::new(convert::project(&project)))
}

#[tonic::async_trait]
impl HardwareService for Apps {
    async fn book(&self, request: Request<proto::HardwareRequest>) -> Answer<proto::Hardware> {
        let registrar = self.registrar()?;
        let (message, by, _) = self.write(request)?;
        let (project, kind) = named(&message)?;
        let booked = registrar.book(&project, &kind, message.count, message.if_revision).await;
        booked.map_err(|error| refused(&error))?;
        info!(%by, %project, %kind, count = message.count, "hardware booked");
        self.kind(&project, &kind).await
    }

    async fn drop(&self, request: Request<proto::HardwareRequest>) -> Answer<proto::Hardware> {
        let registrar = self.registrar()?;
        let (message, by, now) = self.write(request)?;
        let (project, kind) = named(&message)?;
        let asked = (now, message.if_revision);
        let dropped = registrar.drop_hardware(&project, &kind, message.count, asked).await;
        dropped.map_err(|error| refused(&error))?;
        info!(%by, %project, %kind, count = message.count, "hardware dropped");
        self.kind(&project, &kind).await
    }

    async fn list(
        &self,
        request: Request<proto::ProjectRequest>,
    ) -> Answer<proto::ListHardwareResponse> {
        let project: ProjectName = field("name", &request.get_ref().name)?;
        let hardware = self.hardware_of(&project).await?;
        let now = self.clock.now();
        let hardware = hardware.iter().map(|one| convert::hardware(one, now)).collect();
        Ok(Response::new(proto::ListHardwareResponse { hardware }))
    }
}

impl Apps {
    /// All that a project has; the free kind first, which it has without any record of it.
    async fn hardware_of(&self, project: &ProjectName) -> Result<Vec<Held<Seats>>, Status> {
        let registrar = self.registrar()?;
        let found = async {
            registrar.project(project).await?;
            registrar.hardware(project).await
        };
        let mut all = found.await.map_err(|error| refused(&error))?;
        if !all.iter().any(|held| held.record.kind.is_free()) {
            all.push(none(project, &HardwareName::free()));
        }
        all.sort_by_key(|held| (!held.record.kind.is_free(), held.record.kind.clone()));
        Ok(all)
    }

    async fn kind(&self, project: &ProjectName, kind: &HardwareName) -> Answer<proto::Hardware> {
        let all = self.hardware_of(project).await?;
        let seats = all.into_iter().find(|held| held.record.kind == *kind);
        let seats = seats.unwrap_or_else(|| none(project, kind));
        Ok(Response::new(convert::hardware(&seats, self.clock.now())))
    }
}

fn named(message: &proto::HardwareRequest) -> Result<(ProjectName, HardwareName), Status> {
    Ok((field("project", &message.project)?, field("kind", &message.kind)?))
}

/// What a project has of a kind of which nothing was ever booked or used.
fn none(project: &ProjectName, kind: &HardwareName) -> Held<Seats> {
    Held { record: Seats::none(project.clone(), kind.clone()), revision: 0 }
}
