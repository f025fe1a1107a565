//! A proxy that serves and is asked by commands, both as the real binary.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::Receiver;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{self, Daemon, PATIENCE, command, lines, serving, text};

/// A proxy with a socket of its own for commands.
pub(crate) struct Controlled {
    pub(crate) daemon: Daemon,
    folder: tempfile::TempDir,
    /// What it is told by its environment.
    variables: Vec<(String, String)>,
    /// The program that runs it, if any, with that one's arguments.
    under: Vec<String>,
}

impl Controlled {
    /// Serves these routes from a file, and keeps none of its own.
    pub(crate) fn serve(routes: &str) -> Self {
        Self::with(routes, &[])
    }

    /// The same with a store.
    pub(crate) fn storing(routes: &str) -> Self {
        Self::storing_so(routes, &[])
    }

    /// No routes from a file, and a store with further settings.
    pub(crate) fn storing_with(variables: &[(&str, &str)]) -> Self {
        Self::storing_so("", variables)
    }

    fn storing_so(routes: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("routes.redb").display().to_string();
        let all = [&[("MSE_PROXY_STORE_PATH", &*store)], variables].concat();
        Self::start(folder, routes, &all)
    }

    pub(crate) fn with(routes: &str, variables: &[(&str, &str)]) -> Self {
        Self::start(tempfile::tempdir().unwrap(), routes, variables)
    }

    fn start(folder: tempfile::TempDir, routes: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_under(&[], folder, routes, variables)
    }

    /// The same run by another program, which becomes the proxy in the end.
    pub(crate) fn start_under(
        under: &[&str],
        folder: tempfile::TempDir,
        routes: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        std::fs::write(folder.path().join("routes.toml"), routes).unwrap();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: Vec<_> = variables.iter().map(owned).collect();
        let under: Vec<_> = under.iter().map(|&word| word.to_owned()).collect();
        let daemon = Daemon::start(starting(&under, folder.path(), &variables));
        Self { daemon, folder, variables, under }
    }

    /// What starts it again.
    pub(crate) fn starting(&self) -> Command {
        starting(&self.under, self.folder.path(), &self.variables)
    }

    /// The same proxy again, after it was ended.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same with further settings.
    pub(crate) fn restart_with(&mut self, variables: &[(&str, &str)]) {
        let mut command = self.starting();
        command.envs(variables.iter().copied());
        self.daemon = Daemon::start(command);
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.daemon.signal(Signal::KILL);
        self.daemon.wait();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("admin.sock")
    }

    /// A file of this text in the proxy's folder.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).display().to_string()
    }

    /// A command that asks this proxy.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command.env("MSE_PROXY_ADMIN", format!("unix:{}", self.socket().display()));
        command.args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command that must succeed prints.
    pub(crate) fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (told, words) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}{words}");
        told
    }

    /// The same for programs.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let told = self.told(&[&["--format", "json"], arguments].concat());
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
    }

    /// What a command that must be refused says.
    pub(crate) fn refused(&self, arguments: &[&str], status: i32) -> String {
        let output = self.run(arguments);
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {words}");
        words
    }
}

/// Starts a proxy that has all its files in a folder.
fn starting(under: &[String], folder: &Path, variables: &[(String, String)]) -> Command {
    let mut serving = serving(&folder.join("routes.toml"));
    let socket = folder.join("admin.sock");
    serving.env("MSE_PROXY_ADMIN_GRPC", format!("unix:{}", socket.display()));
    serving.envs(variables.iter().cloned());
    if under.is_empty() { serving } else { support::under(under, &serving) }
}

/// A command that goes on for as long as it is let.
pub(crate) struct Following {
    child: Child,
    pub(crate) told: Receiver<String>,
    pub(crate) words: Receiver<String>,
}

impl Following {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let told = lines(child.stdout.take().unwrap(), Some);
        let words = lines(child.stderr.take().unwrap(), Some);
        Self { child, told, words }
    }

    pub(crate) fn next(&self) -> String {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    pub(crate) fn next_json(&self) -> Value {
        serde_json::from_str(&self.next()).unwrap()
    }

    pub(crate) fn next_word(&self) -> String {
        self.words.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command shows on a terminal of so many columns, and how it ends; `typed` is what somebody
/// types there.
pub(crate) fn on_terminal(command: &Command, columns: u16, typed: &str) -> (String, i32) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/on_terminal.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(columns.to_string()).arg(typed);
    python.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => python.env(name, value),
            None => python.env_remove(name),
        };
    }
    let output = python.env("TERM", "xterm").env_remove("NO_COLOR").output().unwrap();
    let shown = text(&output.stdout);
    (shown.replace("\r\n", "\n"), output.status.code().unwrap())
}

/// Without colours and what else steers a terminal.
pub(crate) fn plain(shown: &str) -> String {
    let mut text = String::new();
    let mut letters = shown.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            letters.by_ref().take_while(|letter| !letter.is_ascii_alphabetic()).for_each(drop);
        } else {
            text.push(letter);
        }
    }
    text
}
