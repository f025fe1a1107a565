//! `DomainService`.

use tonic::{Request, Response};
use tracing::info;

use super::convert::{self, field, given};
use super::{Answer, Apps, refused};
use crate::control::proto;
use crate::control::proto::domain_service_server::DomainService;
use crate::hostname::Pattern;

#[tonic::async_trait]
impl DomainService for Apps {
    async fn list(
        &self,
        request: Request<proto::ListDomainsRequest>,
    ) -> Answer<proto::ListDomainsResponse> {
        let registrar = self.registrar()?;
        let project = given("project", &request.get_ref().project)?;
        let domains = registrar.domains(project.as_ref()).await.map_err(|error| refused(&error))?;
        let now = self.clock.now();
        let domains =
            domains.iter().map(|one| convert::domain(one, registrar.claim(&one.record, now)));
        Ok(Response::new(proto::ListDomainsResponse { domains: domains.collect() }))
    }

    async fn get(&self, request: Request<proto::DomainRequest>) -> Answer<proto::Domain> {
        let registrar = self.registrar()?;
        let host: Pattern = field("domain", &request.get_ref().domain)?;
        let domain = registrar.domain(&host).await.map_err(|error| refused(&error))?;
        let claim = registrar.claim(&domain.record, self.clock.now());
        Ok(Response::new(convert::domain(&domain, claim)))
    }

    async fn check(&self, request: Request<proto::DomainRequest>) -> Answer<proto::DomainCheck> {
        let registrar = self.registrar()?;
        let (message, by, now) = self.write(request)?;
        let host: Pattern = field("domain", &message.domain)?;
        let check = registrar.check_domain(&host, now).await.map_err(|error| refused(&error))?;
        if check.event.is_some() {
            info!(%by, domain = %host, gate = check.domain.record.gate.word(), "the gate of a domain changed");
        }
        let claim = registrar.claim(&check.domain.record, now);
        Ok(Response::new(proto::DomainCheck {
            domain: Some(convert::domain(&check.domain, claim)),
            seen: check.seen.word().to_owned(),
            why: check.why.unwrap_or_default(),
        }))
    }
}
