//! Another process: this test binary once more, in which the same test plays its other role.
//!
//! A test that needs one asks first whether it is itself that process ([`role`]), and otherwise
//! starts it ([`start`]), perhaps under another program (`strace`, `unshare`). What the child has
//! to say are lines that begin with a word which the test harness does not use.

use std::env;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// In the environment of a child: the path that it works on.
const ROLE: &str = "MSE_PROXY_STORE_TEST_PATH";
const MARK: &str = "child: ";

/// The path to work on, if this process is a child.
pub(crate) fn role() -> Option<PathBuf> {
    env::var_os(ROLE).map(PathBuf::from)
}

/// Tells the parent.
pub(crate) fn say(what: impl Display) {
    println!("{MARK}{what}");
}

/// A child, killed when it is dropped.
pub(crate) struct Other {
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
}

/// Starts this test as a child that works on a path, under a program or alone.
pub(crate) fn start(test: &str, path: &Path, under: &[&str]) -> Other {
    let this = env::current_exe().unwrap();
    let mut command = match under {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, path);
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(process.stdout.take().unwrap()).lines();
    Other { process, said }
}

impl Other {
    /// What it says next; none when it has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        // The harness begins the first line.
        let mut lines = self.said.by_ref().map(Result::unwrap);
        lines.find_map(|line| line.split_once(MARK).map(|(_, said)| said.to_owned()))
    }

    /// Kills it, as `kill -9` does; what it has said can still be heard.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// Waits for its end, and tells whether it did its work.
    pub(crate) fn ended_well(&mut self) -> bool {
        while self.hear().is_some() {}
        self.process.wait().unwrap().success()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
