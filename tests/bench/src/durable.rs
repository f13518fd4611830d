//! How many durable publishes a second, beside the two things that bound it.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::figures::{Figures, print_table};
use crate::load::{self, Outcome};
use crate::process::{Kind, Server, bind_generator, load_average, on_processors, wait_for_quiet};
use crate::{Common, Failure, http};

const TOPIC: &str = "bench";
const PATH: &str = "/topics/bench";

/// What takes part, in the order of a round. The gateway stands there twice: the difference between the two is noise.
const CONTENDERS: [&str; 4] = ["gateway", "server without storage", "group commit without server", "gateway again"];

#[derive(Clone, Debug, Default)]
struct Contender {
    rate: Figures,
    p50: Figures,
    p99: Figures,
    server_us: Figures,
    generator_us: Figures,
    bystanders: Figures,
}

impl Contender {
    fn add(&mut self, outcome: &Outcome) {
        self.rate.push(outcome.rate);
        self.p50.push(outcome.p50);
        self.p99.push(outcome.p99);
        self.server_us.push(outcome.server_us);
        self.generator_us.push(outcome.generator_us);
        self.bystanders.push(outcome.bystanders);
    }

    fn row(&self, name: &str) -> Vec<String> {
        let time = |figures: &Figures, decimals: usize| {
            let median = figures.median();
            if median.is_nan() { "".to_owned() } else { format!("{median:.decimals$}") }
        };
        vec![
            name.to_owned(),
            self.rate.text(0),
            time(&self.p50, 2),
            time(&self.p99, 2),
            time(&self.server_us, 1),
            time(&self.generator_us, 1),
        ]
    }
}

/// Interleaved rounds for each number of connections.
pub(crate) fn run(common: &Common, connections: &[usize], rounds: usize, seconds: f64) -> Result<(), Failure> {
    bind_generator(common)?;
    let record_bytes = record_bytes(common)?;
    println!("An event takes {record_bytes} bytes in the gateway's log; group commit appends records of that size.\n");
    for connections in connections {
        let mut contenders: [Contender; CONTENDERS.len()] = Default::default();
        let before = load_average();
        for round in 0..rounds {
            for (number, contender) in contenders.iter_mut().enumerate() {
                wait_for_quiet(common);
                let outcome = match number {
                    1 => serve(common, Kind::Null, *connections, seconds)?,
                    2 => group_commit(common, *connections, record_bytes, seconds)?,
                    _ => serve(common, Kind::Gateway, *connections, seconds)?,
                };
                eprintln!(
                    "round {} of {rounds}, {}: {:.0}/s, others {:.2}",
                    round + 1,
                    CONTENDERS[number],
                    outcome.rate,
                    outcome.bystanders
                );
                contender.add(&outcome);
            }
        }
        report(*connections, rounds, seconds, &contenders, &before);
    }
    Ok(())
}

fn report(connections: usize, rounds: usize, seconds: f64, contenders: &[Contender; 4], load_before: &str) {
    let [gateway, null, commit, again] = contenders;
    println!(
        "{connections} connections, {rounds} rounds of {seconds} s, load average {load_before} before the first.\n"
    );
    let heads = ["", "events/s", "p50 ms", "p99 ms", "its CPU us/event", "generator's CPU us/event"];
    let rows: Vec<_> = CONTENDERS.iter().zip(contenders).map(|(name, contender)| contender.row(name)).collect();
    print_table(&heads, &rows);
    let bound = null.rate.lower(&commit.rate);
    let rows = [
        ("gateway / server without storage", gateway.rate.ratio(&null.rate)),
        ("gateway / group commit without server", gateway.rate.ratio(&commit.rate)),
        ("gateway / the lower of both", gateway.rate.ratio(&bound)),
        ("control: gateway / gateway again", gateway.rate.ratio(&again.rate)),
    ];
    let rows: Vec<_> = rows.into_iter().map(|(name, ratio)| vec![name.to_owned(), ratio.text(2)]).collect();
    print_table(&["of the same round", "ratio"], &rows);
    let others: Vec<_> = [gateway, null, again].iter().map(|contender| contender.bystanders.text(2)).collect();
    println!("Processors kept busy by others meanwhile, by contender: {}.\n", others.join("; "));
}

fn serve(common: &Common, kind: Kind, connections: usize, seconds: f64) -> Result<Outcome, Failure> {
    let home = tempfile::tempdir_in(&common.folder)?;
    let mut server = Server::start(common, kind, home.path(), &[])?;
    let measured = Duration::from_secs_f64(seconds);
    let outcome = load::run(server.http, PATH, connections, measured, server.process_id())
        .map_err(|failure| server.post_mortem(&failure))?;
    if kind == Kind::Gateway {
        check_stored(&server, outcome.rate * seconds)?;
    }
    server.terminate()?;
    Ok(outcome)
}

/// At least what was counted is on the topic; a server that drops events is not measured.
fn check_stored(server: &Server, acknowledged: f64) -> Result<(), Failure> {
    let (events, _) = stored(server)?;
    // The rate came from a division; half an event is its rounding.
    if (events as f64) + 0.5 < acknowledged {
        return Err(format!("{acknowledged:.0} events were acknowledged, and {events} are on the topic").into());
    }
    Ok(())
}

/// Events on the topic, and their bytes.
fn stored(server: &Server) -> Result<(u64, u64), Failure> {
    let topic = http::get(server.http, &format!("/topics/{TOPIC}"))?;
    let partitions = topic["partitions"].as_array().ok_or("a topic has partitions")?;
    let sum = |name: &str| partitions.iter().filter_map(|partition| partition[name].as_u64()).sum::<u64>();
    Ok((sum("end") - sum("begin"), sum("bytes")))
}

fn record_bytes(common: &Common) -> Result<u64, Failure> {
    let home = tempfile::tempdir_in(&common.folder)?;
    let server = Server::start(common, Kind::Gateway, home.path(), &[])?;
    load::run(server.http, PATH, 16, Duration::from_millis(200), server.process_id())?;
    let (events, bytes) = stored(&server)?;
    Ok(bytes.checked_div(events).ok_or("nothing was stored")?)
}

fn group_commit(common: &Common, connections: usize, record_bytes: u64, seconds: f64) -> Result<Outcome, Failure> {
    let home = tempfile::tempdir_in(&common.folder)?;
    let mut command: Command = on_processors(common.server_cpus.as_deref(), std::env::current_exe()?.into());
    command.arg("group-commit").arg("--file").arg(home.path().join("records"));
    command.args(["--connections", &connections.to_string(), "--record-bytes", &record_bytes.to_string()]);
    command.args(["--seconds", &seconds.to_string()]).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("group commit: {}", output.status).into());
    }
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let rate = told["rate"].as_f64().ok_or("group commit tells its rate")?;
    Ok(Outcome {
        rate,
        p50: f64::NAN,
        p99: f64::NAN,
        server_us: f64::NAN,
        generator_us: f64::NAN,
        bystanders: f64::NAN,
    })
}

/// One gateway under load, with a profiler beside it.
pub(crate) fn load(common: &Common, connections: usize, seconds: f64, beside: &[String]) -> Result<(), Failure> {
    bind_generator(common)?;
    let home = tempfile::tempdir_in(&common.folder)?;
    let server = Server::start(common, Kind::Gateway, home.path(), &[])?;
    let process = server.process_id().to_string();
    let profiler = match beside.split_first() {
        Some((program, arguments)) => {
            let arguments = arguments.iter().map(|argument| argument.replace("{pid}", &process));
            Some(Command::new(program).args(arguments).spawn()?)
        }
        None => None,
    };
    let outcome = load::run(server.http, PATH, connections, Duration::from_secs_f64(seconds), server.process_id())?;
    server.terminate()?;
    if let Some(mut profiler) = profiler {
        profiler.wait()?;
    }
    println!("{outcome:#?}");
    Ok(())
}
