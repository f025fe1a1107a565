//! mse-proxy: people reach confidential apps by name on port 443, with TLS that ends inside the
//! enclave.
//!
//! A connection's journey, as [`proxy::session`] tells it:
//!
//! ```text
//! TcpStream --accept--> Session --peek--> Peeked{hello, prefix} --lookup--> Arc<Route>
//!    --connect--> Connected{backend} --relay--> Relayed --> Outcome --> Record
//! ```
//!
//! The proxy reads the ClientHello and never answers it, finds the route of the name, dials the
//! backend, replays the same bytes and relays both ways: the client sees the enclave's own
//! certificate. In reading order, each module knowing only those before it:
//!
//! - words: [`hostname`], [`clock`], [`units`], [`nearest`], [`systemd`]; how a path is watched: [`watch`];
//! - bytes and values without IO: [`endpoint`], [`wire`];
//! - facts: [`resolve`], [`outcome`] (every way a session ends), [`routing`] (which route a hello
//!   takes), [`store`] (what outlasts the process);
//! - where routes come from and what the proxy says of itself: [`registry`], [`source`],
//!   [`telemetry`]; what may become a route: [`admission`];
//! - reaching out and carrying bytes: [`probe`], [`proxy`];
//! - putting together: [`reconcile`], [`registrar`], [`admin`], [`control`], [`config`],
//!   [`server`], [`cli`].

pub mod admin;
pub mod admission;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod endpoint;
pub mod hostname;
pub mod nearest;
pub mod outcome;
pub mod probe;
pub mod proxy;
pub mod reconcile;
pub mod registrar;
pub mod registry;
pub mod resolve;
pub mod routing;
pub mod server;
pub mod source;
pub mod store;
pub mod systemd;
pub mod telemetry;
pub mod units;
pub mod watch;
pub mod wire;
