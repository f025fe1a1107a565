//! The workers: an operating-system thread each, with an engine of its own and a socket of every
//! door.

use std::io;
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use futures_util::future::join_all;
use tokio::sync::watch;
use tracing::error;

use crate::clock::Clock;
use crate::config::Config;
use crate::proxy::accept::accept;
use crate::proxy::backend::addresses::Addresses;
use crate::proxy::backend::connect::Dialer;
use crate::proxy::engine::Engine;
use crate::proxy::engine::socket::Listener;
use crate::proxy::fresh::Newcomers;
use crate::proxy::handover::{Colleague, take_over};
use crate::proxy::house::House;
use crate::proxy::limits::Limits;
use crate::proxy::listener::Door;
use crate::proxy::terminate::{self, Terminal};
use crate::server::Vitals;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;

/// How many workers there are: one a core.
#[must_use]
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// What every worker is given.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) vitals: Vitals,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) names: Addresses,
    pub(super) terminating: terminate::Shared,
    pub(super) newcomers: Arc<Newcomers>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) log: AccessLog,
    pub(super) numbers: Arc<AtomicU64>,
    pub(super) config: Config,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) closing: watch::Receiver<bool>,
}

/// Starts one worker for each colleague.
pub(super) fn hire(
    colleagues: Vec<Colleague>,
    plan: &Plan,
    doors: &[Door],
) -> io::Result<Vec<JoinHandle<()>>> {
    let hire_one = |(number, colleague)| {
        let plan = plan.clone();
        let listeners: Vec<_> =
            doors.iter().map(|door| door.of_worker(number)).collect::<Result<_, _>>()?;
        let runtime = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || work((number, colleague), plan, listeners, &runtime.0))?;
        // A worker that cannot start must keep the proxy from starting.
        runtime.1.recv().map_err(io::Error::other)??;
        Ok(thread)
    };
    colleagues.into_iter().enumerate().map(hire_one).collect()
}

/// One worker's life. When its engine stops, the sessions that are still there end, and each writes
/// its record then.
fn work(
    (number, colleague): (usize, Colleague),
    plan: Plan,
    listeners: Vec<std::net::TcpListener>,
    started: &std::sync::mpsc::SyncSender<io::Result<()>>,
) {
    let ready = Engine::new().and_then(|engine| {
        let listeners: io::Result<Vec<_>> =
            listeners.into_iter().map(|one| Listener::adopt(&engine.reactor, one)).collect();
        Ok((engine, listeners?))
    });
    let (engine, listeners) = match ready {
        Ok(ready) => ready,
        Err(error) => return drop(started.send(Err(error))),
    };
    let (stopping, mut closing) = (plan.stopping.clone(), plan.closing.clone());
    let pulses = plan.vitals.pulses.clone();
    let mut pulse = pulses.join(format!("worker-{number}"), &engine.deadlines);
    let (office, inbox) = colleague.begin(&engine, Rc::new(plan.house(&engine)));
    engine.spawner.spawn(take_over(inbox, Rc::clone(&office)));
    let doors = listeners.into_iter().map(|listener| {
        let name = format!("worker-{number}, accepting on {}", listener.address());
        let pulse = pulses.join(name, &engine.deadlines);
        accept(listener, Rc::clone(&office), stopping.clone(), pulse)
    });
    let doors: Vec<_> = doors.collect();
    // Only now, so that whoever looks on from here on sees all of its loops.
    let _ = started.send(Ok(()));
    let worked = engine.run(async move {
        pulse.during(join_all(doors)).await;
        let _ = pulse.during(closing.wait_for(|closing| *closing)).await;
        pulse.rest();
    });
    if let Err(error) = worked {
        // The watchdog misses it from now on.
        error!(%error, number, "a worker cannot wait for events any more");
    }
}

impl Plan {
    fn house(self, engine: &Engine) -> House<Dialer> {
        let ledger = self.vitals.ledger;
        let reactor = engine.reactor.clone();
        let (spawner, deadlines) = (engine.spawner.clone(), engine.deadlines.clone());
        let (settings, clock) = (&self.config.terminate, Arc::clone(&self.clock));
        let terminal = Terminal::new(settings, self.terminating, clock, spawner, deadlines);
        House {
            table: self.vitals.table.reader(),
            dialer: Dialer::new(reactor, &self.config.backend, self.names, Arc::clone(&ledger)),
            ledger,
            limits: self.limits,
            deadlines: engine.deadlines.clone(),
            clock: self.clock,
            log: self.log,
            tally: Rc::new(self.metrics.tally()),
            numbers: self.numbers,
            hello: self.config.hello,
            answer: self.config.refusal.answer,
            idle: Rc::new((&self.config.relay).into()),
            terminal,
            newcomers: self.newcomers,
        }
    }
}

/// Sessions are numbered from the second of the start, so that numbers of two runs differ.
pub(super) fn first_number() -> u64 {
    let seconds = jiff::Timestamp::now().as_second();
    u64::try_from(seconds).unwrap_or(0) << 24
}
