//! How much memory the process may have: the limit of its control group, else the machine's. The one place that asks.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_schemas::limits;

/// The budget is this part of what the process may have.
const BUDGET_PART: usize = 4;

/// What a limit rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration names the budget.
    Configured,
    /// A quarter of the control group's limit.
    ControlGroup,
    /// A quarter of the machine's memory.
    Machine,
    /// Neither could be read.
    Unknown,
}

/// The bytes of the budget, and what they rest on.
pub fn budget_bytes(configured: Option<usize>) -> (usize, Source) {
    match configured {
        Some(bytes) => (bytes, Source::Configured),
        None => from_root(Path::new("/")),
    }
}

fn from_root(root: &Path) -> (usize, Source) {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| total_bytes(&text));
    let group = group_limit(root);
    let (limit, source) = match (machine, group) {
        (Some(machine), Some(group)) if group < machine => (group, Source::ControlGroup),
        (Some(machine), _) => (machine, Source::Machine),
        (None, Some(group)) => (group, Source::ControlGroup),
        (None, None) => (0, Source::Unknown),
    };
    let part = usize::try_from(limit).unwrap_or(usize::MAX) / BUDGET_PART;
    (part.max(limits::MEMORY_BYTES_MIN), source)
}

/// `MemTotal` of `/proc/meminfo`.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of the process's control group and the groups around it, in either version.
fn group_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().filter_map(|line| {
        // ID:CONTROLLERS:PATH; version 2 has the ID 0 and names no controllers.
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (mounted, file) = if id == "0" && controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return None;
        };
        least_up_to(&root.join(mounted), path, file)
    });
    limits.min()
}

/// Inside a container the path is often the host's, and only the mount's root is there.
fn least_up_to(mounted: &Path, path: &str, file: &str) -> Option<u64> {
    let mut folder: PathBuf = mounted.join(path.trim_start_matches('/'));
    let mut least = None;
    loop {
        // "max" is no number, and no limit.
        let limit = fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
        least = [least, limit].into_iter().flatten().min();
        if folder == mounted || !folder.pop() {
            return least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    /// A root with these files.
    fn check(files: &[(&str, &str)], expected: (usize, Source)) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(from_root(root.path()), expected, "{files:?}");
    }

    #[test]
    fn the_least_limit_counts() {
        let machine = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:         1 kB\n");
        let version2 = ("proc/self/cgroup", "0::/system.slice/tidegate.service\n");
        let version1 = ("proc/self/cgroup", "12:cpu,cpuacct:/x\n11:memory:/docker/abc\n1:name=systemd:/\n");
        check(&[machine], (2048 * MIB, Source::Machine));
        check(&[], (16 * MIB, Source::Unknown));
        let max = |path, text| (path, text);
        let own = max("sys/fs/cgroup/system.slice/tidegate.service/memory.max", "1073741824\n");
        check(&[machine, version2, own], (256 * MIB, Source::ControlGroup));
        let above = max("sys/fs/cgroup/system.slice/memory.max", "536870912\n");
        check(&[machine, version2, own, above], (128 * MIB, Source::ControlGroup));
        let unlimited = max("sys/fs/cgroup/system.slice/tidegate.service/memory.max", "max\n");
        check(&[machine, version2, unlimited], (2048 * MIB, Source::Machine));
        let root_only = max("sys/fs/cgroup/memory.max", "1073741824\n");
        check(&[machine, version2, root_only], (256 * MIB, Source::ControlGroup));
        let old = max("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n");
        check(&[machine, version1, old], (256 * MIB, Source::ControlGroup));
        // Version 1 writes no limit as a number beyond every machine.
        let none = max("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n");
        check(&[machine, version1, none], (2048 * MIB, Source::Machine));
        check(&[machine, version2, max("sys/fs/cgroup/memory.max", "1048576\n")], (16 * MIB, Source::ControlGroup));
    }

    #[test]
    fn this_machine_has_memory() {
        let (bytes, source) = budget_bytes(None);
        assert!(bytes >= limits::MEMORY_BYTES_MIN && source != Source::Unknown, "{bytes} {source:?}");
        assert_eq!(budget_bytes(Some(7)), (7, Source::Configured));
    }
}
