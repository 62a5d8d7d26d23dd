//! What the configuration takes from the machine: variables, name, processors, descriptors, memory.

use std::collections::BTreeMap;

/// The machine as the configuration sees it. Tests bring their own.
pub trait Environment {
    /// The value of an environment variable that `${NAME}` asks for.
    fn variable(&self, name: &str) -> Option<String>;
    /// `node.id: auto`
    fn host_name(&self) -> String;
    /// `server.workers: auto`: threads that can run at once.
    fn parallelism(&self) -> usize;
    /// Soft limit of file descriptors, for `server.limits.connections: auto`.
    fn descriptors(&self) -> u64;
    /// Bytes of memory that this process may use, for sizes given as a share.
    fn memory(&self) -> u64;
}

/// The process and machine that this code runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl Environment for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn host_name(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .ok()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "localhost".to_owned())
    }

    fn parallelism(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn descriptors(&self) -> u64 {
        // `/proc/self/limits` says the same as getrlimit(2), without unsafe code.
        std::fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(soft_descriptor_limit).unwrap_or(1024)
    }

    fn memory(&self) -> u64 {
        let total = std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(total_memory).unwrap_or(1 << 30);
        // A container's own limit, where there is one (cgroup v2; the file holds `max` without a limit).
        let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
        limit.map_or(total, |limit: u64| limit.min(total))
    }
}

/// A machine that is what it is told to be.
#[derive(Debug, Clone)]
pub struct FixedEnvironment {
    pub variables: BTreeMap<String, String>,
    pub host_name: String,
    pub parallelism: usize,
    pub descriptors: u64,
    pub memory: u64,
}

impl Default for FixedEnvironment {
    fn default() -> Self {
        let (host_name, memory) = ("edge-test".to_owned(), 8 << 30);
        Self { variables: BTreeMap::new(), host_name, parallelism: 4, descriptors: 20_000, memory }
    }
}

impl Environment for FixedEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn host_name(&self) -> String {
        self.host_name.clone()
    }

    fn parallelism(&self) -> usize {
        self.parallelism
    }

    fn descriptors(&self) -> u64 {
        self.descriptors
    }

    fn memory(&self) -> u64 {
        self.memory
    }
}

fn soft_descriptor_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        // Linux never lets a process open more than this by default (fs.nr_open).
        "unlimited" => Some(1 << 20),
        number => number.parse().ok(),
    }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_memory_are_read_from_the_kernels_own_words() {
        let limits =
            "Max processes             95836   95836   processes\nMax open files            20000  1048576  files\n";
        assert_eq!(soft_descriptor_limit(limits), Some(20_000));
        assert_eq!(total_memory("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24_576 * 1024));
        assert!(Machine.parallelism() > 0 && Machine.descriptors() > 0 && Machine.memory() > 0);
    }
}
