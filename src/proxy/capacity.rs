//! Whether the machine can give what `limits` promise, told at the start instead of in the rush.
//!
//! [`Machine::look`] reads what the kernel allows, [`Machine::judge`] compares it with the
//! settings and touches nothing. What cannot be read (a container may hide `/proc/sys`) is not
//! judged. File descriptors of this process are another file's concern.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::proxy::limits::Settings;
use crate::proxy::listener::BACKLOG;
use crate::units::Size;

/// What one idle connection costs: 3 KiB here and 10 KiB for its two sockets in the kernel, measured
/// with 9,650 of them. Those that move bytes hold more, so this is the least.
const MEMORY_EACH: u64 = 16 << 10;
/// A connection is one with a client and one with a backend.
const SOCKETS_EACH: u64 = 2;

/// What the kernel allows; none of what it does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Machine {
    /// `net.core.somaxconn`: how many connections may wait to be accepted.
    pub backlog: Option<u64>,
    /// `fs.file-max`: open files of all processes.
    pub files: Option<u64>,
    /// `net.ipv4.ip_local_port_range`: how many connections can lead to one address and port.
    pub ports: Option<u64>,
    /// `net.netfilter.nf_conntrack_max`, if a firewall keeps track of connections.
    pub tracked: Option<u64>,
    /// Bytes of memory that are available, or that this service may have at the most.
    pub memory: Option<u64>,
}

/// Something that the machine does not give. Its text says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// What there is too little of.
    pub of: Resource,
    /// How much there is.
    pub there: u64,
    /// How much is needed.
    pub needed: u64,
}

/// What there can be too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Places for connections that wait to be accepted.
    Backlog,
    /// Open files of the whole machine.
    Files,
    /// Local ports towards one backend.
    Ports,
    /// Entries of the firewall's table.
    Tracked,
    /// Memory.
    Memory,
}

impl Machine {
    /// Asks the kernel.
    #[must_use]
    pub fn look() -> Self {
        // A table that is empty on a machine that serves is not in use.
        let is_tracking = number("net/netfilter/nf_conntrack_count").is_some_and(|count| count > 0);
        Self {
            backlog: number("net/core/somaxconn"),
            files: number("fs/file-max"),
            ports: read("/proc/sys/net/ipv4/ip_local_port_range").and_then(|text| ports(&text)),
            tracked: number("net/netfilter/nf_conntrack_max").filter(|_| is_tracking),
            memory: available().into_iter().chain(allowed()).min(),
        }
    }

    /// What it does not give of what these settings need.
    #[must_use]
    pub fn judge(&self, settings: &Settings) -> Vec<Shortage> {
        let connections = u64::try_from(settings.connections.count()).unwrap_or(u64::MAX);
        let sockets = connections.saturating_mul(SOCKETS_EACH);
        [
            (Resource::Backlog, self.backlog, u64::from(BACKLOG.unsigned_abs())),
            (Resource::Files, self.files, sockets),
            // How many connections will lead to one backend nobody knows, unless a route is
            // expected to take so many.
            (Resource::Ports, self.ports, u64::from(settings.connections_per_route)),
            (Resource::Tracked, self.tracked, sockets),
            (Resource::Memory, self.memory, connections.saturating_mul(MEMORY_EACH)),
        ]
        .into_iter()
        .filter_map(|(of, there, needed)| {
            let there = there.filter(|there| *there < needed)?;
            Some(Shortage { of, there, needed })
        })
        .collect()
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, there, needed } = *self;
        match of {
            Resource::Backlog => write!(
                f,
                "of clients who come at once, {there} may wait to be accepted and not {needed}: \
                 sysctl -w net.core.somaxconn={needed}"
            ),
            Resource::Files => write!(
                f,
                "limits.connections needs {needed} open files and all processes together may have \
                 {there}: sysctl -w fs.file-max={}",
                needed.saturating_mul(2)
            ),
            Resource::Ports => write!(
                f,
                "limits.connections_per_route allows {needed} connections and {there} can lead to one \
                 address of a backend: sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\", or give \
                 such routes several backends"
            ),
            Resource::Tracked => write!(
                f,
                "limits.connections needs {needed} entries of the firewall's table, which takes \
                 {there} and drops what is beyond: sysctl -w net.netfilter.nf_conntrack_max={}",
                needed.saturating_mul(2)
            ),
            Resource::Memory => write!(
                f,
                "limits.connections needs {} of memory even for idle connections and there are {}: \
                 lower it, or give the service more (MemoryMax=)",
                mebibytes(needed),
                mebibytes(there)
            ),
        }
    }
}

fn mebibytes(bytes: u64) -> Size {
    Size(bytes >> 20 << 20)
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// A kernel setting that is one number.
fn number(setting: &str) -> Option<u64> {
    read(Path::new("/proc/sys").join(setting))?.trim().parse().ok()
}

/// How many ports are between two, both included.
fn ports(text: &str) -> Option<u64> {
    let mut ends = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else { return None };
    Some(last.checked_sub(first)? + 1)
}

fn available() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1 << 10)
}

/// What this control group (version 2) may have; those above it may allow less.
fn allowed() -> Option<u64> {
    let groups = read("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // "max" is no number.
    read(Path::new("/sys/fs/cgroup").join(own).join("memory.max"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(connections: u32, per_route: u32) -> Settings {
        Settings {
            connections: connections.try_into().unwrap(),
            connections_per_route: per_route,
            ..Settings::default()
        }
    }

    #[test]
    fn a_machine_that_gives_enough_or_tells_nothing_is_not_spoken_of() {
        assert_eq!(Machine::default().judge(&settings(u32::MAX, u32::MAX)), []);
        let exactly = Machine {
            backlog: Some(4096),
            files: Some(2000),
            ports: Some(500),
            tracked: Some(2000),
            memory: Some(1000 * MEMORY_EACH),
        };
        assert_eq!(exactly.judge(&settings(1000, 500)), []);
        let of: Vec<_> = exactly.judge(&settings(1001, 501)).iter().map(|one| one.of).collect();
        assert_eq!(of, [Resource::Files, Resource::Ports, Resource::Tracked, Resource::Memory]);
    }

    #[test]
    fn each_shortage_tells_its_remedy() {
        let poor = Machine {
            backlog: Some(128),
            files: Some(1),
            ports: Some(28_232),
            tracked: Some(1),
            memory: Some(3 << 20),
        };
        let told = poor.judge(&settings(100_000, 50_000));
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        for (text, remedy) in told.iter().zip([
            "128 may wait to be accepted and not 4096: sysctl -w net.core.somaxconn=4096",
            "sysctl -w fs.file-max=400000",
            "28232 can lead to one address of a backend: sysctl -w net.ipv4.ip_local_port_range=",
            "sysctl -w net.netfilter.nf_conntrack_max=400000",
            "needs 1562MiB of memory even for idle connections and there are 3MiB",
        ]) {
            assert!(text.contains(remedy), "{text}");
        }
        assert_eq!(told.len(), 5);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let machine = Machine::look();
        assert!(machine.backlog.is_some() && machine.files.is_some(), "{machine:?}");
        assert!(machine.ports.is_some_and(|ports| ports <= 65_536), "{machine:?}");
        assert!(machine.memory.is_some_and(|bytes| bytes > 1 << 20), "{machine:?}");
    }

    #[test]
    fn a_range_of_ports_has_both_its_ends() {
        assert_eq!(ports("32768\t60999\n"), Some(28_232));
        assert_eq!(ports("60999 32768"), None);
        assert_eq!(ports(""), None);
    }
}
