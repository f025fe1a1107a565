//! A client that has arrived at its backend, until one of them is done.

use std::task::{Context, Poll};

use crate::proxy::connections::Entry;
use crate::proxy::draft::Draft;
use crate::proxy::engine::deadlines::Deadline;
use crate::proxy::fresh::Newcomer;
use crate::proxy::limits::Permit;
use crate::proxy::relay::pump::{End, Relay};
use crate::proxy::transport::Transport;
use crate::telemetry::metrics::Moved;

/// A client that has arrived at its backend: all that a session holds from then on. Its size is
/// what an idle connection costs.
pub(super) struct Passage<T, B> {
    pub(super) relay: Relay<T, B>,
    pub(super) told: Moved,
    pub(super) timer: Deadline,
    pub(super) entry: Entry,
    pub(super) permit: Permit,
    /// While it is new to an app that serves one client at a time.
    pub(super) newcomer: Option<Box<Newcomer>>,
    pub(super) draft: Draft,
}

impl<T: Transport, B: Transport> Passage<T, B> {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut polled = self.relay.poll(cx, self.entry.handle(), &mut self.timer);
        let settled = self.newcomer.as_ref().and_then(|one| one.settled(self.relay.moved()));
        if let Some(limits) = settled {
            self.relay.relax(limits, &mut self.timer);
            self.newcomer = None;
            if polled.is_pending() {
                // The timer was set anew.
                polled = self.relay.poll(cx, self.entry.handle(), &mut self.timer);
            }
        }
        let Draft { tally, visit, .. } = &self.draft;
        tally.carried(visit.as_ref(), &mut self.told, self.relay.moved());
        polled
    }

    pub(super) fn end(self, end: End) {
        let Self { relay, entry, permit, newcomer, mut draft, .. } = self;
        let relayed = relay.end(end);
        // Before the record is written: whoever reads it finds everything given back.
        drop((entry, permit, newcomer));
        draft.to_backend_bytes = relayed.to_backend;
        draft.to_client_bytes = relayed.to_client;
        draft.first_byte = relayed.first_byte;
        draft.outcome = relayed.into();
    }
}
