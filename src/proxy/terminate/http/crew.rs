//! Running hyper's tasks on our engine.
//!
//! Those that belong to one client's connection are polled by its own session, so that they end
//! with it, whatever ends it. Those that carry a connection to a backend outlive the client, and
//! are tasks of the worker.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::rt::Executor;

use crate::proxy::engine::tasks::Spawner;

type Task = LocalBoxFuture<'static, ()>;

/// Takes the tasks of one client's connection. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Hiring {
    fresh: Rc<RefCell<Vec<Task>>>,
}

impl Hiring {
    /// Starts a task of the connection.
    pub(crate) fn hire(&self, task: impl Future<Output = ()> + 'static) {
        self.fresh.borrow_mut().push(Box::pin(task));
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Hiring {
    fn execute(&self, task: F) {
        self.hire(task);
    }
}

/// The tasks of one client's connection.
#[derive(Default)]
pub(crate) struct Crew {
    hiring: Hiring,
    tasks: FuturesUnordered<Task>,
}

impl Crew {
    /// Where tasks are taken.
    pub(crate) fn hiring(&self) -> Hiring {
        self.hiring.clone()
    }

    /// Lets all tasks work that can. Ready if there is none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.tasks.extend(self.hiring.fresh.borrow_mut().drain(..));
            let polled = self.tasks.poll_next_unpin(cx);
            if polled != Poll::Ready(Some(())) && self.hiring.fresh.borrow().is_empty() {
                return polled.map(drop);
            }
        }
    }
}

/// Takes tasks that belong to nobody's connection.
#[derive(Debug, Clone)]
pub(crate) struct Errands(pub(crate) Spawner);

impl<F: Future<Output = ()> + 'static> Executor<F> for Errands {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
