//! What DNS says of a customer's own domain: where it leads, step by step, and what it shows.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::admission::dns::{MAX_ALIASES, name_within, token_name};
use crate::admission::evidence::{DomainEvidence, Lookup, LookupEnd, Tokens};
use crate::hostname::{Hostname, Pattern};
use crate::resolve::records::{Answer, Records};

/// How long all questions about one domain may take. A dozen of them, at milliseconds each.
const BUDGET: Duration = Duration::from_secs(20);
/// The most texts of a name that are kept.
const MAX_TEXTS: usize = 64;

/// Gathers what DNS says of a domain. Nothing is judged here, and whatever goes wrong is a fact.
pub async fn gather(
    records: &impl Records,
    domain: &Pattern,
    proxy_name: &Hostname,
) -> DomainEvidence {
    let asking = async {
        tokio::join!(
            follow_pattern(records, domain, proxy_name),
            own_addresses(records, proxy_name),
            tokens(records, domain),
        )
    };
    if let Ok((lookup, proxy_addresses, tokens)) = timeout(BUDGET, asking).await {
        return DomainEvidence { lookup, proxy_addresses, tokens };
    }
    let why = format!("no answer within {} s", BUDGET.as_secs());
    DomainEvidence {
        lookup: Lookup { aliases: vec![], end: LookupEnd::Unanswered(why.clone()) },
        proxy_addresses: vec![],
        tokens: Tokens::Unanswered(why),
    }
}

async fn follow_pattern(records: &impl Records, domain: &Pattern, proxy_name: &Hostname) -> Lookup {
    match name_within(domain) {
        Ok(name) => follow(records, &name, Some(proxy_name)).await,
        Err(why) => Lookup { aliases: vec![], end: LookupEnd::Unanswered(why.to_string()) },
    }
}

/// Follows the aliases of a name to their end, or to a name beyond which nobody need look.
async fn follow(records: &impl Records, name: &Hostname, until: Option<&Hostname>) -> Lookup {
    let mut aliases: Vec<Hostname> = Vec::new();
    let end = loop {
        let at = aliases.last().unwrap_or(name);
        match records.alias(at).await {
            Answer::Found(found) => {
                // A name has one alias (RFC 1034 §3.6.2); of several nobody knows which is taken.
                let [next] = found.as_slice() else {
                    break LookupEnd::Unanswered(format!("{at} has several CNAMEs"));
                };
                let is_known = next == name || aliases.contains(next);
                let is_too_many = aliases.len() >= MAX_ALIASES;
                aliases.push(next.clone());
                if is_too_many {
                    break LookupEnd::TooMany;
                }
                if Some(next) == until {
                    break LookupEnd::Proxy;
                }
                if is_known {
                    break LookupEnd::Loop;
                }
            }
            Answer::NoSuchName => break LookupEnd::NoSuchName,
            Answer::Unanswered(why) => break LookupEnd::Unanswered(why),
            Answer::NoRecord => {
                break match records.addresses(at).await {
                    Answer::Found(addresses) => LookupEnd::Addresses(addresses),
                    Answer::NoSuchName => LookupEnd::NoSuchName,
                    Answer::NoRecord => LookupEnd::NoAddress,
                    Answer::Unanswered(why) => LookupEnd::Unanswered(why),
                };
            }
        }
    };
    Lookup { aliases, end }
}

async fn own_addresses(records: &impl Records, proxy_name: &Hostname) -> Vec<IpAddr> {
    match follow(records, proxy_name, None).await.end {
        LookupEnd::Addresses(addresses) => addresses,
        LookupEnd::Proxy
        | LookupEnd::NoSuchName
        | LookupEnd::NoAddress
        | LookupEnd::Loop
        | LookupEnd::TooMany
        | LookupEnd::Unanswered(_) => vec![],
    }
}

async fn tokens(records: &impl Records, domain: &Pattern) -> Tokens {
    let name = match token_name(domain).parse::<Hostname>() {
        Ok(name) => name,
        Err(why) => return Tokens::Unanswered(why.to_string()),
    };
    match records.texts(&name).await {
        Answer::Found(mut texts) => {
            texts.truncate(MAX_TEXTS);
            Tokens::Found(texts)
        }
        Answer::NoSuchName | Answer::NoRecord => Tokens::Found(vec![]),
        Answer::Unanswered(why) => Tokens::Unanswered(why),
    }
}
