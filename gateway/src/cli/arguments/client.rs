//! The commands that speak to a running gateway.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::values::{self, Server};

/// A command that a running gateway carries out.
#[derive(Clone, Debug, Subcommand)]
pub enum Client {
    /// Publish one event, or the events of a file, and print the receipts
    Publish(Publish),
    /// Follow a topic and print its events as they come
    Tail(Tail),
    /// Show what became of an event: who got it, every attempt, and why somebody did not get it
    Why(Why),
    /// Show what changed resource files would do to subscriptions and to recorded events; changes nothing
    Plan(Plan),
    /// List, show, create and delete topics
    #[command(subcommand)]
    Topics(Topics),
    /// List, show, create, delete, pause and resume subscriptions
    #[command(subcommand)]
    Subscriptions(Subscriptions),
    /// List and show bindings to queues and exchanges, and resume those that stand still
    #[command(subcommand)]
    Bindings(Bindings),
    /// Look at what could not be delivered, send it again, or drop it
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Bring a gateway's topics and subscriptions to what resource files say
    Apply(Apply),
    /// Show or change which log lines the gateway writes, until it ends
    LogLevel(LogLevel),
    /// List and show the applications that are declared
    #[command(subcommand)]
    Apps(Apps),
    /// Show what runs: backbone, gateways, slots
    Cluster(ClusterArguments),
    /// Move everything to another backbone while publishing goes on
    Migrate(MigrateArguments),
    /// Publish a load and measure its latencies, to the receipt and to a follower of the topic
    Bench(Bench),
    /// Look at what a gateway needs (ports, disk, limits, config, server), and say what is wrong and how to mend it
    Doctor(Doctor),
    /// List, show, add, choose and remove contexts: named gateways with their tokens
    #[command(subcommand)]
    Context(Contexts),
}

/// What is done with apps.
#[derive(Clone, Debug, Subcommand)]
pub enum Apps {
    /// List all apps
    List,
    /// Show one app
    Show {
        /// The app
        id: String,
    },
}

/// Arguments of `cluster`.
#[derive(Args, Clone, Copy, Debug)]
pub struct ClusterArguments {
    /// What is asked; `show` where nothing is said.
    #[command(subcommand)]
    pub command: Option<Cluster>,
}

/// What is asked of the cluster.
#[derive(Clone, Copy, Debug, Default, Subcommand)]
pub enum Cluster {
    /// List the gateways
    List,
    /// List the slots with their owners
    Slots,
    /// Show the backbone and the gateways
    #[default]
    Show,
}

/// Arguments of `migrate`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  tidegate migrate --to new
  tidegate migrate status -o json

`new` is a `Broker` of the gateway's resources:
  apiVersion: tidegate.dev/v1
  kind: Broker
  metadata: {name: new}
  spec: {url: 'kafka://127.0.0.1:9092'}")]
pub struct MigrateArguments {
    /// The broker to move to, by its name in the resources of the gateway
    #[arg(long, value_name = "BROKER")]
    pub to: Option<String>,
    /// Begin it, and do not wait for its end
    #[arg(long, requires = "to")]
    pub no_wait: bool,
    /// What is asked.
    #[command(subcommand)]
    pub command: Option<Migrate>,
}

/// What is asked of a migration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Migrate {
    /// Show how it stands, with the count and hash of every partition
    Status,
    /// Give it up, before the move was made
    Cancel,
}

/// Arguments of `bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tidegate bench --events 50000 --concurrency 64
  tidegate bench orders.load --rate 2000 --duration 30s -o json

Without --rate each publisher waits for its answer, and latencies leave out what a stall kept from being sent. With --rate
they count from when each event was due.")]
pub struct Bench {
    /// The topic
    #[arg(default_value = "bench")]
    pub topic: String,
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000), conflicts_with = "duration")]
    pub events: u64,
    /// For how long, in place of a number of events, such as 30s
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub duration: Option<Duration>,
    /// Events a second, due at even times whether or not answers come (open loop)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// Publishers, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub concurrency: u32,
    /// The bytes of each payload, a JSON text
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = values::payload_bytes)]
    pub size: usize,
    /// Do not follow the topic, which measures no end-to-end latency
    #[arg(long)]
    pub no_follow: bool,
}

/// Arguments of `doctor`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tidegate doctor
  tidegate doctor --config /etc/tidegate/gateway.yaml
  tidegate doctor --server http://127.0.0.1:3500 -o json")]
pub struct Doctor {
    /// Config file (a Gateway resource) of serve [default: look at what dev would use]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Broker to look at in place of the one in the config file, such as nats://127.0.0.1:4222
    #[arg(long, value_name = "URL", env = super::BACKBONE_VARIABLE, hide_env_values = true)]
    pub backbone: Option<String>,
}

/// What is done with contexts.
#[derive(Clone, Debug, Subcommand)]
pub enum Contexts {
    /// List all contexts
    List,
    /// Show one context, without its token
    Show {
        /// The context [default: the current one]
        name: Option<String>,
    },
    /// Add a context; the first one becomes the current one
    #[command(after_help = "Examples:
  tidegate context add staging https://mesh.example.com --token-variable STAGING_TOKEN
  tidegate context add local http://127.0.0.1:3500")]
    #[command(group = clap::ArgGroup::new("where").multiple(false))]
    Add {
        /// Its name
        name: String,
        /// The gateway
        #[arg(value_name = "URL")]
        url: Server,
        /// The token is in this variable of the process environment
        #[arg(long, value_name = "VARIABLE", group = "where")]
        token_variable: Option<String>,
        /// The token is the first line of this file
        #[arg(long, value_name = "FILE", group = "where")]
        token_file: Option<PathBuf>,
        /// Read the token from standard input and keep it in the file of contexts
        #[arg(long, group = "where")]
        token_stdin: bool,
    },
    /// Speak to this context from now on
    Use {
        /// The context
        name: String,
    },
    /// Remove a context
    Remove {
        /// The context
        name: String,
    },
}

/// Arguments of `log-level`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tidegate log-level
  tidegate log-level warn,tidegate::sink=debug
  tidegate log-level --reset")]
pub struct LogLevel {
    /// A level (error, warn, info, debug, trace), or directives by module
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
    /// Go back to what the gateway began with
    #[arg(long, conflicts_with = "filter")]
    pub reset: bool,
}

/// Arguments of `publish`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tidegate publish orders --type com.example.order.placed --key customer-7 --data '{\"amount\": 120}'
  tidegate publish orders --file orders.ndjson
  journalctl -f -o cat | tidegate publish logs --file -")]
pub struct Publish {
    /// The topic
    pub topic: String,
    /// The event's type
    #[arg(long = "type", value_name = "TYPE", default_value = "tidegate.cli.published")]
    pub kind: String,
    /// The event's source, a URI reference
    #[arg(long, value_name = "URI", default_value = "tidegate/cli")]
    pub source: String,
    /// The event's subject
    #[arg(long, value_name = "TEXT")]
    pub subject: Option<String>,
    /// The key (attribute partitionkey): events of one key keep their order
    #[arg(long, value_name = "TEXT")]
    pub key: Option<String>,
    /// The event's id; the same id and source sent again soon is dropped as a repeat [default: random]
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    pub id: Option<String>,
    /// The payload: JSON where it reads as JSON, else text
    #[arg(long, value_name = "DATA", conflicts_with = "file", allow_hyphen_values = true)]
    pub data: Option<String>,
    /// The payload's media type [default: application/json or text/plain, whichever fits]
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Events to publish: a .json file (an event or an array of them), a .ndjson file, or - for standard input (one a
    /// line). An object with a specversion is an event and is sent as it is; anything else is the payload of an event
    /// made of the other options
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Arguments of `apply`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  tidegate apply resources/ --dry-run")]
pub struct Apply {
    /// Resource files, or folders of them
    #[arg(required = true, value_name = "FILES")]
    pub files: Vec<PathBuf>,
    /// Change nothing, and say what would be
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `tail`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tidegate tail orders --from earliest
  tidegate tail orders --from 2026-01-31T08:00:00Z --limit 10 -o json")]
pub struct Tail {
    /// The topic
    pub topic: String,
    /// Where to begin: earliest, latest, a position, or a time (RFC 3339)
    #[arg(long, value_name = "WHERE", default_value = "latest")]
    pub from: String,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Follow this partition only
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    /// Show only events that pass this expression of CloudEvents SQL, such as "type = 'order.placed'"
    #[arg(long, value_name = "CESQL")]
    pub filter: Option<String>,
}

/// Arguments of `why`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tidegate why order-17
  tidegate why order-17 --source /shop -o json")]
pub struct Why {
    /// The event's id
    pub id: String,
    /// The event's source [default: every source that has such an id]
    #[arg(long, value_name = "URI")]
    pub source: Option<String>,
    /// Show the event's data too
    #[arg(long)]
    pub data: bool,
}

/// Arguments of `plan`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A folder stands for the whole set of resource files: subscriptions of other files would end. Files by
name say nothing about others, unless --complete says so. Variables (${env:NAME}) in the files take
their values from here and are sent along.

Examples:
  tidegate plan resources/
  tidegate plan orders.yaml --topic orders.placed --last 10000"
)]
pub struct Plan {
    /// Resource files, or folders of them
    #[arg(required = true, value_name = "FILES")]
    pub files: Vec<PathBuf>,
    /// Look at events of this topic only; may be given several times [default: every topic that a subscription reads]
    #[arg(long, value_name = "TOPIC")]
    pub topic: Vec<String>,
    /// How many events of each topic, the newest [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub last: Option<u64>,
    /// The files are the whole set: subscriptions of other files would end
    #[arg(long)]
    pub complete: bool,
}

/// What is done with topics.
#[derive(Clone, Debug, Subcommand)]
pub enum Topics {
    /// List all topics
    List,
    /// Show one topic: partitions, ends, subscriptions
    Show {
        /// The topic
        name: String,
    },
    /// Create a topic, or change one that is there; what is not named stays as it is
    Create {
        /// The topic: letters, digits, _ and -, in segments joined by dots
        name: String,
        /// How it is to be.
        #[command(flatten)]
        settings: TopicSettings,
    },
    /// Delete a topic and all its events
    Delete {
        /// The topic
        name: String,
    },
}

/// How a topic is to be.
#[derive(Args, Clone, Debug, Default)]
pub struct TopicSettings {
    /// How many partitions; they never change [default: what the gateway's config says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: Option<u32>,
    /// The attribute that is the key; it never changes [default: partitionkey]
    #[arg(long, value_name = "ATTRIBUTE", value_parser = ["partitionkey", "subject"])]
    pub key_from: Option<String>,
    /// How long a second event of the same source and id is dropped, such as 2m; 0s takes it
    #[arg(long, value_name = "TIME")]
    pub dedupe_window: Option<String>,
    /// How long events are kept, such as 7d, or unlimited
    #[arg(long, value_name = "TIME")]
    pub retention_age: Option<String>,
    /// How many bytes of each partition are kept, such as 10GiB, or unlimited
    #[arg(long, value_name = "BYTES")]
    pub retention_bytes: Option<String>,
    /// A topic that is there on the broker, by its name there: it is read and written as it is, and never deleted
    #[arg(long, value_name = "NAME", conflicts_with_all = ["partitions", "retention_age", "retention_bytes"])]
    pub attach: Option<String>,
    /// The broker beside the backbone that it is on, as the gateway's files name it
    #[arg(long, value_name = "NAME", requires = "attach")]
    pub broker: Option<String>,
    /// What becomes of records that are no events: wrapped in one, or dead letters [default: wrap]
    #[arg(long, value_name = "WHAT", value_parser = ["wrap", "dead-letter"])]
    pub foreign: Option<String>,
}

/// What is done with subscriptions.
#[derive(Clone, Debug, Subcommand)]
pub enum Subscriptions {
    /// List all subscriptions and how they are doing
    List,
    /// Show one subscription
    Show {
        /// The subscription
        name: String,
    },
    /// Create a subscription from an object of the CloudEvents Subscriptions API
    Create {
        /// A .json file, or - for standard input; resources in YAML are for `apply`
        file: PathBuf,
    },
    /// End a subscription; its dead letters stay in their topic
    Delete {
        /// The subscription
        name: String,
    },
    /// Stop delivering; events wait until the subscription is resumed
    Pause {
        /// The subscription
        name: String,
        /// Why, for whoever looks at it next
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Deliver again, and let keys go on that stand still
    Resume {
        /// The subscription
        name: String,
        /// Only this key
        #[arg(long)]
        key: Option<String>,
        /// What becomes of the event that a key stands at
        #[arg(long, value_parser = ["retry", "dead-letter", "drop"])]
        head: Option<String>,
    },
}

/// What is done with bindings.
#[derive(Clone, Debug, Subcommand)]
pub enum Bindings {
    /// List all bindings and how they are doing
    List,
    /// Show one binding
    Show {
        /// The binding
        name: String,
    },
    /// Read again from where an input stands still
    Resume {
        /// The binding
        name: String,
    },
}

/// What is done with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLetters {
    /// List what could not be delivered, and why
    List {
        /// The subscription
        subscription: String,
        /// Count them by reason and answer
        #[arg(long)]
        group: bool,
        /// Only those of a group, as --group names it
        #[arg(long, value_name = "CAUSE")]
        cause: Option<String>,
    },
    /// Show one dead letter with its event
    Show {
        /// The subscription
        subscription: String,
        /// The dead letter, as list names it
        id: String,
    },
    /// Deliver dead letters again: those named, or all
    Redrive(RedriveLetters),
    /// Drop dead letters for good: those named, or all
    #[command(group = clap::ArgGroup::new("which").required(true))]
    #[command(override_usage = "tidegate dead-letters drop [OPTIONS] <SUBSCRIPTION> <ID...|--all>")]
    Drop {
        /// The subscription
        subscription: String,
        /// The dead letters
        #[arg(value_name = "ID", group = "which")]
        ids: Vec<String>,
        /// Drop every dead letter of the subscription
        #[arg(long, group = "which")]
        all: bool,
    },
}

/// Arguments of `dead-letters redrive`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tidegate dead-letters redrive large-orders --cause exhausted-503 --rate 5
  tidegate dead-letters redrive large-orders 0-17 --edit mended.json")]
pub struct RedriveLetters {
    /// The subscription
    pub subscription: String,
    /// The dead letters [default: all]
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Only those of a group, as `list --group` names it
    #[arg(long, value_name = "CAUSE", conflicts_with = "ids")]
    pub cause: Option<String>,
    /// Change nothing, and say which would be delivered
    #[arg(long)]
    pub dry_run: bool,
    /// The most to deliver in a second; may be less than 1
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// A .json file with members of the event's JSON format, which take the place of those that it has; null removes one.
    /// Goes with exactly one dead letter
    #[arg(long, value_name = "FILE", requires = "ids")]
    pub edit: Option<PathBuf>,
}
