//! Passing requests on: HTTP/1.1 and HTTP/2 on either side, streamed, by pooled connections.
//!
//! In reading order: `serve` carries one client's connection, `exchange` one request, `respond` its
//! response; `headers` knows what may pass from one side to the other, `framing` finds what could be
//! read in two ways, by `head`, and calls it by its `fault`, [`body`] carries bodies, `page` are the
//! answers of our own, [`pool`] keeps the connections to backends, `tunnel` is what becomes of an
//! upgrade; `desk` is what the exchanges of one connection share, `line` what each leaves behind,
//! `gate` the client's stream as hyper sees it, `gather` lets writes leave together, `crew` runs
//! hyper's tasks on our engine.

pub mod body;
pub(super) mod crew;
pub(super) mod desk;
pub(super) mod exchange;
pub(super) mod fault;
pub(super) mod framing;
pub(super) mod gate;
pub(super) mod gather;
pub(super) mod head;
pub(super) mod headers;
pub(super) mod line;
pub(super) mod page;
pub mod pool;
pub(super) mod respond;
pub(super) mod serve;
pub(super) mod tunnel;
