//! A proxy that runs, from its start to the end of the last of its processes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::crew;
use crate::hello::{Hello, Order, Size};
use crate::measure::{self, family};
use crate::programs::{Contestant, Duty, Reload};
use crate::tls::{Client, Handshake};

/// How long a proxy may take to serve: Envoy takes 5 to 10 s for 100,000 hosts.
const START: Duration = Duration::from_mins(1);
/// How long one try may take.
const TRY: Duration = Duration::from_secs(2);
/// Between two looks whether it serves.
const LOOK: Duration = Duration::from_millis(2);

/// A proxy that serves; all its processes are killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    contestant: Contestant,
    folder: TempDir,
    /// From the start of the process to the first answer through it.
    pub(crate) took: Duration,
}

impl Running {
    /// Starts a proxy and waits until it serves.
    pub(crate) fn start(contestant: &Contestant, duty: &Duty) -> io::Result<Self> {
        Self::start_under(&[], contestant, duty)
    }

    /// The same under another program, whose command line these words begin, in the proxy's own
    /// folder.
    pub(crate) fn start_under(
        words: &[&str],
        contestant: &Contestant,
        duty: &Duty,
    ) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("mse-proxy-bench-").tempdir()?;
        contestant.write_routes(folder.path(), duty)?;
        let mut command = under(words, contestant.command(folder.path(), duty)?);
        command.current_dir(folder.path());
        for (name, _) in std::env::vars_os() {
            let is_ours = command.get_envs().any(|(own, _)| own == name);
            if name.to_string_lossy().starts_with("MSE_PROXY_") && !is_ours {
                command.env_remove(name);
            }
        }
        let log = File::create(folder.path().join("output.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", contestant.binary.display()))
        })?;
        let contestant = contestant.clone();
        let mut running = Self { child, contestant, folder, took: Duration::ZERO };
        while !serves(duty) {
            let is_over = running.child.try_wait()?.is_some();
            if is_over || started.elapsed() > START {
                return Err(io::Error::other(running.obituary()));
            }
            std::thread::sleep(LOOK);
        }
        running.took = started.elapsed();
        Ok(running)
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > START {
                return Err(io::Error::other(format!("{} does not stop", self.contestant.name)));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Its processes at this moment.
    pub(crate) fn family(&self) -> Vec<u32> {
        family(self.child.id())
    }

    /// Gives it other routes.
    pub(crate) fn reload(&self, duty: &Duty) -> io::Result<()> {
        self.contestant.write_routes(self.folder.path(), duty)?;
        match self.contestant.reload() {
            Reload::Watches => Ok(()),
            Reload::Signal(signal) => Ok(kill_process(Pid::from_child(&self.child), signal)?),
        }
    }

    fn obituary(&self) -> String {
        let read = |file| fs::read_to_string(self.folder.path().join(file)).unwrap_or_default();
        let name = &self.contestant.name;
        format!("{name} does not serve:\n{}{}", read("output.log"), read("error.log"))
    }
}

/// A command as the argument of another.
fn under(words: &[&str], command: Command) -> Command {
    let Some((program, arguments)) = words.split_first() else { return command };
    let mut outer = Command::new(program);
    outer.args(arguments).arg(command.get_program()).args(command.get_args());
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer
}

impl Drop for Running {
    fn drop(&mut self) {
        let family = self.family();
        measure::remember(&family);
        // Workers outlive a master that is killed, so each is killed by its number.
        for process in family {
            if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
                // One that is gone already is as good.
                let _ = kill_process(process, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// Whether a proxy answers.
fn serves(duty: &Duty) -> bool {
    if !duty.is_ending {
        return ask(duty.listen, 0).is_ok();
    }
    let Ok(client) = Client::new(Handshake::Full, duty.listen, 0) else { return false };
    let visit = async { tokio::time::timeout(TRY, client.visit(duty.listen)).await };
    matches!(crew::run(visit), Ok(Ok(Ok(_))))
}

/// Asks for a host through a proxy: the mark of the origin that answers.
pub(crate) fn ask(address: SocketAddr, host: usize) -> io::Result<u8> {
    let mut hello = Hello::new(Size::Small, Order::Answer(1));
    hello.rename(host);
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TRY))?;
    stream.write_all(hello.segments().0)?;
    let mut mark = [0];
    stream.read_exact(&mut mark)?;
    Ok(mark[0])
}
