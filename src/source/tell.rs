//! What a source says in the log about its faults: each once, and that they were mended.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::{info, warn};

use crate::source::fault::Fault;

/// How many faults one look writes to the log; `check` and the status page show more.
const MAX_LOGGED: usize = 50;

/// Logs what was not known before, and how much is mended.
pub(super) fn faults(before: &[Fault], now: &[Fault]) {
    // A fault that only moved to another line is not new.
    let key = |fault: &Fault| {
        let Fault { place, kind } = fault;
        (Arc::clone(&place.origin.source), place.line_text.clone(), kind.to_string())
    };
    let known: HashSet<_> = before.iter().map(key).collect();
    let current: HashSet<_> = now.iter().map(key).collect();
    let mut fresh = now.iter().filter(|fault| !known.contains(&key(fault)));
    for fault in fresh.by_ref().take(MAX_LOGGED) {
        warn!(at = %fault.place.origin, "{}", fault.kind);
    }
    let more = fresh.count();
    if more > 0 {
        warn!(more, "faults are not shown here; `mse-proxy check` shows all");
    }
    let mended = known.difference(&current).count();
    if mended > 0 {
        info!(mended, left = current.len(), "faults of the routes were mended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::document;
    use std::io;
    use std::sync::Mutex;
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Self;
        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(before: &[Fault], now: &[Fault]) -> Vec<String> {
        let log = Log::default();
        let writer = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false);
        let writer = writer.without_time().with_target(false).finish();
        tracing::subscriber::with_default(writer, || super::faults(before, now));
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn faults_of(text: &str) -> Vec<Fault> {
        document::read(&"r.toml".into(), text).faults
    }

    #[test]
    fn a_fault_is_logged_once_and_its_mending_too() {
        let one = faults_of("colour = 1");
        let moved = faults_of("# a comment\ncolour = 1");
        let two = faults_of("colour = 1\nsize = 2");
        let known = "is not known here; a routes file has nothing but [[route]] tables";
        assert_eq!(logged(&[], &one), [format!("WARN `colour` {known} at=r.toml:1:1")]);
        assert_eq!(logged(&one, &one), Vec::<String>::new());
        assert_eq!(logged(&one, &moved), Vec::<String>::new());
        assert_eq!(logged(&one, &two), [format!("WARN `size` {known} at=r.toml:2:1")]);
        assert_eq!(logged(&two, &moved), ["INFO faults of the routes were mended mended=1 left=1"]);
    }

    #[test]
    fn very_many_faults_do_not_fill_the_log() {
        let text = (0..200).fold(String::new(), |text, key| text + &format!("k{key} = 1\n"));
        let lines = logged(&[], &faults_of(&text));
        assert_eq!(lines.len(), MAX_LOGGED + 1);
        assert!(lines[MAX_LOGGED].ends_with("more=150"), "{}", lines[MAX_LOGGED]);
    }
}
