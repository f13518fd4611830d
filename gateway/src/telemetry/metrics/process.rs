//! Figures of the process, read from `/proc` when they are asked for, under the names that Prometheus clients share. Where
//! there is no `/proc` they are left out.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::names::{self, Figure};

/// Ticks of processor time in a second, as `/proc` counts them: fixed in Linux's interface, whatever the kernel runs at.
const TICKS_PER_SECOND: f64 = 100.0;

/// See the module.
#[derive(Debug)]
pub(super) struct Process;

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Usage {
    resident_bytes: i64,
    cpu_seconds: f64,
    started_at: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(usage) = usage() {
            put(&mut encoder, names::RESIDENT_MEMORY, &ConstGauge::new(usage.resident_bytes))?;
            put(&mut encoder, names::CPU_SECONDS, &ConstCounter::new(usage.cpu_seconds))?;
            put(&mut encoder, names::START_TIME, &ConstGauge::new(usage.started_at))?;
        }
        if let Some(open) = open_files() {
            put(&mut encoder, names::OPEN_FILES, &ConstGauge::new(open))?;
        }
        if let Some(most) = max_files() {
            put(&mut encoder, names::MAX_FILES, &ConstGauge::new(most))?;
        }
        Ok(())
    }
}

fn put(encoder: &mut DescriptorEncoder<'_>, figure: Figure, metric: &impl EncodeMetric) -> Result<(), std::fmt::Error> {
    // The registry puts the full stop behind what is registered with it.
    let help = format!("{}.", figure.help);
    metric.encode(encoder.encode_descriptor(figure.name, &help, None, metric.metric_type())?)
}

fn usage() -> Option<Usage> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted_at: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    parse(&stat, booted_at, resident_bytes()?)
}

/// `/proc/self/stat`: the name of the program may hold blanks and brackets, so fields count from its end.
fn parse(stat: &str, booted_at: f64, resident_bytes: i64) -> Option<Usage> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // The first of them is field 3 of proc(5): utime is 14, stime 15, starttime 22.
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some(Usage {
        resident_bytes,
        cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
        started_at: booted_at + ticks(22)? / TICKS_PER_SECOND,
    })
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()? * 1024)
}

fn open_files() -> Option<i64> {
    // The folder itself is open while it is read.
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok().map(|count| count - 1)
}

/// The soft limit; none where there is no limit.
pub(crate) fn max_files() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_behind_a_name_with_blanks_and_brackets_are_found() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 1200 1 1 1";
        let usage = parse(stat, 1_000.0, 4096).unwrap();
        assert_eq!(usage, Usage { resident_bytes: 4096, cpu_seconds: 3.0, started_at: 1_012.0 });
        assert!(parse("7 (a", 0.0, 0).is_none());
    }
}
