//! Measurements of the whole: real processes, an own load generator, and always something to compare with that ran in
//! the same minute on the same machine. `docs/benchmarks.md` says what the figures mean; `scripts/bench` runs them.
//!
//! Nothing here fails because a figure is bad. It fails where an answer is wrong.
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "measurements run beside the product: they read real clocks, start threads and print"
)]

mod brokers;
mod commit;
mod connections;
mod durable;
mod figures;
mod http;
mod idle;
mod latency;
mod load;
mod matching;
mod null;
mod overload;
mod passports;
mod process;
mod sink;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Anything that ends a measurement, with its reason.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures the release build of Tidegate.
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Durable publishes a second, against the same server without storage and against group commit without a server
    Durable(Durable),
    /// Time from publish to delivery at a fixed rate, against posting straight to the sink
    Latency(Latency),
    /// Memory at rest, and time from start to ready
    Idle(Idle),
    /// Memory of the index of passports, and the time of a question
    Passports(Passports),
    /// Time to find the subscriptions of an event, among ten and among ten thousand
    Matching(Matching),
    /// Memory of connections that rest, and what they cost others
    Connections(Connections),
    /// Many times the sustainable rate: goodput, refusals, memory, and the way back
    Overload(Overload),
    /// Publishes and deliveries a second of the primitives, against the broker's client library
    Backbone(Backbone),
    /// Slot commits a second, against appends of the broker's client library
    Slots(brokers::OnBroker),
    /// Time of a commit that another gateway asks for, and what it is made of
    Forwarded(brokers::OnBroker),
    /// What a gateway with many topics costs while nothing happens
    Rest(brokers::Rest),
    /// One gateway under load, for a profiler
    Load(Load),
    /// Serves as the gateway does, but acknowledges events without storing them
    #[command(hide = true)]
    ServeNull(process::ServeArguments),
    /// Appends records by group commit, and prints what it came to
    #[command(hide = true)]
    GroupCommit(commit::Arguments),
}

/// What all measurements share.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// The gateway to measure; default: TIDEGATE_BINARY, else the one beside this program
    #[arg(long, env = "TIDEGATE_BINARY")]
    pub(crate) binary: Option<PathBuf>,
    /// Folder for data; it decides which disk is measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub(crate) folder: PathBuf,
    /// Processors of whatever is measured, as `taskset` takes them; default: all
    #[arg(long, requires = "generator_cpus")]
    pub(crate) server_cpus: Option<String>,
    /// Seconds to wait, before each measurement, for others to leave the processors alone
    #[arg(long, default_value_t = 20.0)]
    pub(crate) quiet_seconds: f64,
    /// Processors of the load generator
    #[arg(long, requires = "server_cpus")]
    pub(crate) generator_cpus: Option<String>,
}

#[derive(Args, Debug)]
struct Durable {
    #[command(flatten)]
    common: Common,
    /// Connections at once, each with one request in flight
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    connections: Vec<usize>,
    /// Rounds; each measures every contender once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement, after half a second of warming up
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

#[derive(Args, Debug)]
struct Latency {
    #[command(flatten)]
    common: Common,
    /// Events offered each second
    #[arg(long, value_delimiter = ',', default_value = "1000,5000")]
    rates: Vec<u32>,
    /// Rounds; each measures the straight way and the way through the gateway
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement, after half a second of warming up
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

#[derive(Args, Debug)]
struct Idle {
    #[command(flatten)]
    common: Common,
    /// Starts of each kind
    #[arg(long, default_value_t = 20)]
    starts: usize,
    /// Megabytes (10^6 bytes) of the log that is not empty
    #[arg(long, default_value_t = 100)]
    log_megabytes: u64,
}

#[derive(Args, Debug)]
struct Passports {
    #[command(flatten)]
    common: Common,
    /// Events that are published and delivered
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// Questions of each kind
    #[arg(long, default_value_t = 500)]
    questions: usize,
}

#[derive(Args, Debug)]
struct Matching {
    #[command(flatten)]
    common: Common,
    /// The number of subscriptions to compare with
    #[arg(long, default_value_t = 10)]
    few: usize,
    /// The number of subscriptions that shall cost no more
    #[arg(long, default_value_t = 10_000)]
    many: usize,
    /// Rounds; each measures every contender once
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
}

#[derive(Args, Debug)]
struct Overload {
    #[command(flatten)]
    common: Common,
    /// Connections at once, each with one request in flight
    #[arg(long, default_value_t = 900)]
    connections: usize,
    /// Events on their way that the gateway allows; each is measured
    #[arg(long, value_delimiter = ',', default_value = "128,8192")]
    in_flight: Vec<usize>,
    /// The gateway's budget of memory
    #[arg(long, default_value_t = 256)]
    memory_mebibytes: u64,
    /// How many times the sustainable rate is offered
    #[arg(long, default_value_t = 10)]
    factor: u32,
    /// Seconds of the burst; before and after it a third of that
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

#[derive(Args, Debug)]
struct Backbone {
    #[command(flatten)]
    on: brokers::OnBroker,
    /// Events that are read from the beginning
    #[arg(long, default_value_t = 100_000)]
    events: usize,
}

#[derive(Args, Debug)]
struct Connections {
    #[command(flatten)]
    common: Common,
    /// Connections of each kind; the gateway takes 10,000, and a few are left for publishing
    #[arg(long, default_value_t = 9_990)]
    connections: usize,
}

#[derive(Args, Debug)]
struct Load {
    #[command(flatten)]
    common: Common,
    /// Connections at once
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// A command that is started beside it; `{pid}` stands for the gateway's process
    #[arg(last = true)]
    beside: Vec<String>,
}

fn main() -> Result<(), Failure> {
    match Arguments::parse().command {
        Command::Durable(arguments) => {
            durable::run(&arguments.common, &arguments.connections, arguments.rounds, arguments.seconds)
        }
        Command::Latency(arguments) => {
            latency::run(&arguments.common, &arguments.rates, arguments.rounds, arguments.seconds)
        }
        Command::Idle(arguments) => idle::run(&arguments.common, arguments.starts, arguments.log_megabytes * 1_000_000),
        Command::Passports(arguments) => passports::run(&arguments.common, arguments.events, arguments.questions),
        Command::Matching(arguments) => {
            matching::run(&arguments.common, arguments.few, arguments.many, arguments.rounds, arguments.seconds)
        }
        Command::Connections(arguments) => connections::run(&arguments.common, arguments.connections),
        Command::Overload(arguments) => {
            let Overload { common, connections, in_flight, memory_mebibytes, factor, seconds } = arguments;
            in_flight.into_iter().try_for_each(|in_flight| {
                let plan = overload::Plan { connections, in_flight, memory_mebibytes, factor, seconds };
                overload::run(&common, plan)
            })
        }
        Command::Backbone(arguments) => brokers::primitives(&arguments.on, arguments.events),
        Command::Slots(arguments) => brokers::slots(&arguments),
        Command::Forwarded(arguments) => brokers::forwarded(&arguments),
        Command::Rest(arguments) => brokers::rest(&arguments),
        Command::Load(arguments) => {
            durable::load(&arguments.common, arguments.connections, arguments.seconds, &arguments.beside)
        }
        Command::ServeNull(arguments) => null::serve(arguments),
        Command::GroupCommit(arguments) => commit::run(&arguments),
    }
}
