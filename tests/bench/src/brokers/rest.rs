//! What a gateway with many topics costs its machine and its broker while nothing happens.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args;

use crate::figures::{Figures, print_table};
use crate::process::{Kind, Server, memory_bytes, processor_time, wait_for_quiet};
use crate::{Common, Failure};

const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// Topics in one resource file.
const TOPICS_OF_A_FILE: usize = 100;
/// After everything was created.
const SETTLE: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(crate) struct Rest {
    #[command(flatten)]
    common: Common,
    /// `embedded`, or the URL of an empty broker: `scripts/brokers up nats` prints one
    #[arg(long, default_value = "embedded")]
    backbone: String,
    /// Topics
    #[arg(long, default_value_t = 1_000)]
    topics: usize,
    /// Partitions of each topic
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    /// Subscriptions, each to every topic
    #[arg(long, default_value_t = 20)]
    subscriptions: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Measurements of each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What was used a second.
#[derive(Default)]
struct Used {
    processor: Figures,
    segments: Figures,
    switches: Figures,
}

/// Measures the machine without a gateway, one with nothing, and one with all the topics.
pub(crate) fn run(arguments: &Rest) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut nothing = Used::default();
    for _ in 0..arguments.rounds {
        measure(arguments, None, &mut nothing)?;
    }
    rows.push(row("no gateway", &nothing, None));
    let plans = [(0, 0), (arguments.topics, arguments.subscriptions)];
    for (topics, subscriptions) in plans {
        let home = tempfile::tempdir_in(&arguments.common.folder)?;
        let server = start(arguments, home.path(), topics, subscriptions)?;
        std::thread::sleep(SETTLE);
        let mut used = Used::default();
        for _ in 0..arguments.rounds {
            measure(arguments, Some(server.process_id()), &mut used)?;
        }
        let resident = memory_bytes(server.process_id(), "VmRSS")? as f64 / MEBIBYTE;
        let name = format!("{topics} topics of {} partitions, {subscriptions} subscriptions", arguments.partitions);
        rows.push(row(
            &format!("{name}, ready after {:.1} s", server.ready_after.as_secs_f64()),
            &used,
            Some(resident),
        ));
        server.terminate()?;
    }
    print_table(&["", "its CPU ms/s", "TCP segments/s of the machine", "its voluntary switches/s", "RSS MiB"], &rows);
    Ok(())
}

fn row(name: &str, used: &Used, resident: Option<f64>) -> Vec<String> {
    vec![
        name.to_owned(),
        used.processor.text(2),
        used.segments.text(0),
        used.switches.text(0),
        resident.map_or_else(String::new, |resident| format!("{resident:.0}")),
    ]
}

/// A gateway whose resources are declared in files, on the backbone that is measured.
fn start(arguments: &Rest, home: &std::path::Path, topics: usize, subscriptions: usize) -> Result<Server, Failure> {
    let resources = home.join("resources");
    std::fs::create_dir(&resources)?;
    let names: Vec<String> = (0..topics).map(|number| format!("rest.t{number}")).collect();
    for (file, names) in names.chunks(TOPICS_OF_A_FILE).enumerate() {
        let mut text = String::new();
        for name in names {
            writeln!(
                text,
                "---\napiVersion: tidegate.dev/v1\nkind: Topic\nmetadata: {{name: {name}}}\nspec: {{partitions: {}}}",
                arguments.partitions
            )?;
        }
        std::fs::write(resources.join(format!("topics-{file}.yaml")), text)?;
    }
    let mut text = String::new();
    for number in 0..subscriptions {
        writeln!(
            text,
            "---\napiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {{name: rest-{number}}}\nspec:\n  \
             topics: [\"rest.*\"]\n  sink: http://127.0.0.1:9/\n"
        )?;
    }
    if subscriptions > 0 {
        std::fs::write(resources.join("subscriptions.yaml"), text)?;
    }
    let backbone = match arguments.backbone.as_str() {
        "embedded" => format!("embedded:{}", home.join("data").display()),
        url => url.to_owned(),
    };
    let resources = resources.display().to_string();
    std::fs::write(
        home.join("gateway.yaml"),
        format!(
            "apiVersion: tidegate.dev/v1\nkind: Gateway\nspec:\n  backbone: \"{backbone}\"\n  resources: \"{resources}\"\n"
        ),
    )?;
    Server::start(&arguments.common, Kind::Configured, home, &[])
}

fn measure(arguments: &Rest, process_id: Option<u32>, used: &mut Used) -> Result<(), Failure> {
    wait_for_quiet(&arguments.common);
    let look = || -> Result<(Duration, u64, u64), Failure> {
        let (processor, switches) = match process_id {
            Some(id) => (processor_time(id)?, voluntary_switches(id)?),
            None => (Duration::ZERO, 0),
        };
        Ok((processor, tcp_segments()?, switches))
    };
    let (began, before) = (Instant::now(), look()?);
    std::thread::sleep(Duration::from_secs_f64(arguments.seconds));
    let (after, seconds) = (look()?, began.elapsed().as_secs_f64());
    used.processor.push((after.0 - before.0).as_secs_f64() * 1e3 / seconds);
    used.segments.push((after.1 - before.1) as f64 / seconds);
    used.switches.push(after.2.saturating_sub(before.2) as f64 / seconds);
    Ok(())
}

/// Segments with or without data that this machine sent, over loopback too.
fn tcp_segments() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).ok_or("/proc/net/snmp is not understood")?;
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "OutSegs");
    let (_, value) = found.ok_or("/proc/net/snmp is not understood")?;
    Ok(value.parse()?)
}

/// How often the threads of a process have waited for something.
fn voluntary_switches(process_id: u32) -> Result<u64, Failure> {
    let mut switches = 0;
    for thread in std::fs::read_dir(format!("/proc/{process_id}/task"))? {
        // A thread may have ended since it was listed.
        let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else { continue };
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        switches += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(switches)
}
