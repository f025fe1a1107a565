//! Who we are, where etcd asks for it: the token that a user's password buys.
//!
//! A token is bought once and used by all; it is replaced before it is old, and when etcd does not
//! know it any more (its time was shorter, etcd was restarted, roles were changed).

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use super::files;
use super::link::Link;
use super::rpc::AuthenticateRequest;
use super::rpc::auth_client::AuthClient;
use super::settings::Settings;
use super::verdict::{Verdict, judge};

/// etcd's tokens live for 300 s by default (`--auth-token-ttl`).
const TOKEN_AGE: Duration = Duration::from_mins(4);

/// The user, and the token in use.
pub(super) struct Login {
    user: Option<(String, PathBuf)>,
    pass: Mutex<Option<Pass>>,
    /// One buys, the others wait: a password costs etcd a tenth of a second of CPU.
    renewing: tokio::sync::Mutex<()>,
}

/// What goes along with each request.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    /// None where etcd asks nobody.
    token: Option<MetadataValue<Ascii>>,
    taken: Instant,
}

impl Pass {
    /// Puts it on a request, and the wish to be refused by a member that has lost its cluster: it
    /// would answer late, and its watches would stay silent.
    pub(super) fn sign<T>(&self, request: &mut Request<T>) {
        let metadata = request.metadata_mut();
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            metadata.insert("token", token.clone());
        }
    }
}

impl Login {
    pub(super) fn new(settings: &Settings) -> Self {
        let user = settings.user.clone().zip(settings.password_file.clone());
        Self { user, pass: Mutex::new(None), renewing: tokio::sync::Mutex::new(()) }
    }

    /// The pass in use. Over this connection a new one is bought, if there is none or it is old.
    pub(super) async fn pass(&self, link: &Link) -> Result<Pass, Verdict> {
        if let Some(pass) = self.valid() {
            return Ok(pass);
        }
        let _renewing = self.renewing.lock().await;
        match self.valid() {
            Some(pass) => Ok(pass),
            None => self.buy(link).await,
        }
    }

    /// The same over a connection that may never answer: nobody waits for it but the caller.
    pub(super) async fn pass_of_stranger(&self, link: &Link) -> Result<Pass, Verdict> {
        match self.valid() {
            Some(pass) => Ok(pass),
            None => self.buy(link).await,
        }
    }

    /// Forgets a pass that was not accepted. Without a user no other can be had.
    pub(super) fn forget(&self, stale: &Pass) -> Result<(), Verdict> {
        if self.user.is_none() {
            let why = "it wants a user: set `store.etcd.user` and `store.etcd.password_file`";
            return Err(Verdict::Refused(why.to_owned()));
        }
        let mut pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner);
        if pass.as_ref().is_some_and(|pass| pass.taken == stale.taken) {
            *pass = None;
        }
        Ok(())
    }

    fn valid(&self) -> Option<Pass> {
        if self.user.is_none() {
            return Some(Pass { token: None, taken: Instant::now() });
        }
        let pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner);
        pass.clone().filter(|pass| pass.taken.elapsed() < TOKEN_AGE)
    }

    async fn buy(&self, link: &Link) -> Result<Pass, Verdict> {
        let (name, token) = match &self.user {
            None => (None, None),
            Some((name, file)) => (Some(name.as_str()), self.token(link, name, file).await?),
        };
        let pass = Pass { token, taken: Instant::now() };
        if name.is_some() {
            *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass.clone());
        }
        Ok(pass)
    }

    async fn token(
        &self,
        link: &Link,
        name: &str,
        file: &std::path::Path,
    ) -> Result<Option<MetadataValue<Ascii>>, Verdict> {
        let file = file.to_owned();
        let password = tokio::task::spawn_blocking(move || files::password(&file));
        let password = match password.await {
            Ok(Ok(password)) => password,
            // Somebody may be about to replace it.
            Ok(Err(error)) => return Err(Verdict::NotDone(error.to_string())),
            Err(error) => return Err(Verdict::NotDone(error.to_string())),
        };
        let request = AuthenticateRequest { name: name.to_owned(), password };
        let mut client = AuthClient::with_origin(link.clone(), link.origin());
        match client.authenticate(request).await {
            Ok(answer) => {
                let token = answer.into_inner().token;
                let mut token: MetadataValue<Ascii> = token
                    .parse()
                    .map_err(|_| Verdict::Refused("its token is no text".to_owned()))?;
                token.set_sensitive(true);
                Ok(Some(token))
            }
            Err(status) if status.message().contains("authentication is not enabled") => Ok(None),
            Err(status) => Err(match judge(&status) {
                Verdict::Refused(said) => Verdict::Refused(format!("user `{name}`: {said}")),
                other => other,
            }),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("Login").field("user", &name).finish_non_exhaustive()
    }
}
