//! What all sessions of one worker share: nothing in it belongs to one client.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::clock::Clock;
use crate::proxy::connections::Ledger;
use crate::proxy::engine::deadlines::Deadlines;
use crate::proxy::fresh::Newcomers;
use crate::proxy::limits::Limits;
use crate::proxy::peek;
use crate::proxy::relay::idle;
use crate::proxy::terminate::Terminal;
use crate::routing::table::Reader;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Tally;
use crate::wire::alert::Answer;

/// What all sessions of one worker share.
#[derive(Debug)]
pub struct House<C> {
    /// The routes.
    pub table: Reader,
    /// Who is here.
    pub ledger: Arc<Ledger>,
    /// Who may come in.
    pub limits: Arc<Limits>,
    /// The way to the backends.
    pub dialer: C,
    /// The worker's deadlines.
    pub deadlines: Deadlines,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where records go.
    pub log: AccessLog,
    /// Where this worker counts.
    pub tally: Rc<Tally>,
    /// The number of the next session, shared by all workers.
    pub numbers: Arc<AtomicU64>,
    /// How hellos are read.
    pub hello: peek::Settings,
    /// How refused clients are answered.
    pub answer: Answer,
    /// How long a relay may stand still.
    pub idle: Rc<idle::Limits>,
    /// Who is new to an app that serves one client at a time.
    pub newcomers: Arc<Newcomers>,
    /// Where TLS is ended, for routes that ask for it.
    pub terminal: Terminal,
}
