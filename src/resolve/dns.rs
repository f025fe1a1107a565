//! DNS itself, asked through the servers of the system or through chosen ones. Nothing is cached:
//! whoever has just created a record wants it to be seen.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use crate::hostname::Hostname;
use crate::resolve::records::{Answer, Records};

/// How long a server may take for one answer, and how often it is asked. Real ones take
/// milliseconds, some seconds where they must ask far away themselves.
const TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;

/// DNS, asked record by record.
#[derive(Clone)]
pub struct Dns {
    resolver: TokioResolver,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

/// Why DNS cannot be asked at all.
#[derive(Debug, thiserror::Error)]
#[error("DNS cannot be asked: {0}")]
pub struct Unusable(#[from] NetError);

impl Dns {
    /// Asks these servers; the system's if there are none.
    ///
    /// # Errors
    /// The system's configuration cannot be read.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, Unusable> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = servers.iter().map(|server| {
                let at_port = |mut connection: ConnectionConfig| {
                    connection.port = server.port();
                    connection
                };
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                NameServerConfig::new(server.ip(), true, connections.map(at_port).into())
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        set(builder.options_mut());
        Ok(Self { resolver: builder.build()? })
    }

    /// Asks for one kind of record.
    async fn ask<T>(
        &self,
        name: &Hostname,
        kind: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Answer<T> {
        // With its dot at the end no search domain is tried behind it.
        let name = match Name::from_ascii(format!("{name}.")) {
            Ok(name) => name,
            Err(error) => return Answer::Unanswered(error.to_string()),
        };
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(found) => {
                // Records of other names are those of an alias, which is its own question.
                let own = found.answers().iter().filter(|record| record.name == name);
                let found: Vec<T> = own.filter_map(|record| take(&record.data)).collect();
                if found.is_empty() { Answer::NoRecord } else { Answer::Found(found) }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Answer::NoSuchName,
                ResponseCode::NoError => Answer::NoRecord,
                code => Answer::Unanswered(format!("the server says {code}")),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                Answer::Unanswered(format!("the server says {code}"))
            }
            Err(error) => Answer::Unanswered(error.to_string()),
        }
    }
}

fn set(options: &mut ResolverOpts) {
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.edns0 = true;
    options.try_tcp_on_error = true;
}

impl Records for Dns {
    async fn alias(&self, name: &Hostname) -> Answer<Hostname> {
        let found = self.ask(name, RecordType::CNAME, |data| match data {
            RData::CNAME(target) => Some(target.0.to_ascii()),
            _ => None,
        });
        match found.await {
            Answer::Found(names) => {
                let names: Result<Vec<Hostname>, _> =
                    names.iter().map(|name| Hostname::from_wire(name.as_bytes())).collect();
                names.map_or_else(
                    |why| Answer::Unanswered(format!("its alias: {why}")),
                    Answer::Found,
                )
            }
            Answer::NoSuchName => Answer::NoSuchName,
            Answer::NoRecord => Answer::NoRecord,
            Answer::Unanswered(why) => Answer::Unanswered(why),
        }
    }

    async fn addresses(&self, name: &Hostname) -> Answer<IpAddr> {
        let v4 = self.ask(name, RecordType::A, |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        });
        let v6 = self.ask(name, RecordType::AAAA, |data| match data {
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        both(tokio::join!(v4, v6))
    }

    async fn texts(&self, name: &Hostname) -> Answer<String> {
        self.ask(name, RecordType::TXT, |data| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        })
        .await
    }
}

/// Both kinds of addresses. What one of them does not tell may be the address that matters, so
/// half an answer is none.
fn both(answers: (Answer<IpAddr>, Answer<IpAddr>)) -> Answer<IpAddr> {
    match answers {
        (Answer::Unanswered(why), _) | (_, Answer::Unanswered(why)) => Answer::Unanswered(why),
        (Answer::Found(mut v4), Answer::Found(v6)) => {
            v4.extend(v6);
            Answer::Found(v4)
        }
        (Answer::Found(one), _) | (_, Answer::Found(one)) => Answer::Found(one),
        (Answer::NoSuchName, Answer::NoSuchName) => Answer::NoSuchName,
        (Answer::NoSuchName | Answer::NoRecord, Answer::NoSuchName | Answer::NoRecord) => {
            Answer::NoRecord
        }
    }
}
