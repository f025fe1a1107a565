//! How far a long command is: for who looks at a terminal, and for nobody else.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::report::Voice;

/// What is done at once needs no bar.
const TICK: Duration = Duration::from_millis(120);

/// A line on standard error that is gone when the work is done.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// So many steps of something.
    pub(super) fn new(steps: u64, doing: impl Into<Cow<'static, str>>, voice: Voice) -> Self {
        let target = if voice.complaints.is_terminal() && voice.style.is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        let template = if steps > 1 {
            "{spinner} {msg} {wide_bar} {pos}/{len}, {eta} left"
        } else {
            "{spinner} {msg}, {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_message(doing);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Says something beside it.
    pub(super) fn aside(&self, say: impl FnOnce()) {
        self.0.suspend(say);
    }

    /// Something else is done from now on.
    pub(super) fn goes_on(&self, doing: impl Into<Cow<'static, str>>) {
        self.0.set_message(doing);
    }

    /// One step is done.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
