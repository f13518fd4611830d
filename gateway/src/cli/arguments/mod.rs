//! The one table of commands. The help texts are written for whoever types them.

mod client;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Parser, Subcommand, ValueEnum};

pub use client::{
    Apply, Apps, Bench, Bindings, Client, Cluster, ClusterArguments, Contexts, DeadLetters, Doctor, LogLevel, Publish,
    RedriveLetters, Subscriptions, Tail, Topics,
};
pub(crate) use client::{Migrate, MigrateArguments, Plan, TopicSettings, Why};
pub use values::{Server, Token};

/// The variable that names a backbone, where credentials may stand in its URL.
pub(crate) const BACKBONE_VARIABLE: &str = "TIDEGATE_BACKBONE";

/// One binary that turns the broker you run, or none, into an event mesh.
#[derive(Clone, Debug, Parser)]
#[command(name = "tidegate", version, long_version = LONG_VERSION.as_str(), max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "Begin with: tidegate dev\n\nExit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 outcome \
                        unknown (the change may have been made)."
)]
pub struct Arguments {
    /// What goes with every command.
    #[command(flatten)]
    pub globals: Globals,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What goes with every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The gateway to speak to
    #[arg(long, global = true, env = "TIDEGATE_SERVER", value_name = "URL")]
    #[arg(help = format!("The gateway to speak to [default: that of the context, else {}]", Server::DEFAULT))]
    pub server: Option<Server>,
    /// Bearer token to show to the gateway
    #[arg(long, global = true, env = "TIDEGATE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<Token>,
    /// Context to take server and token from [default: the current one; see tidegate context]
    #[arg(long, global = true, env = "TIDEGATE_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// File of contexts [default: tidegate/contexts.json in the folder for configuration]
    #[arg(long, global = true, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    pub context_file: Option<PathBuf>,
    /// Which of these came from the process environment, and so give way to what was typed.
    #[arg(skip)]
    pub from_environment: FromEnvironment,
    /// How to print results: for people, or exactly what the API gave (one document a line where there are many)
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Output,
}

/// Which options came from the process environment and not from the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FromEnvironment {
    /// `--server`.
    pub server: bool,
    /// `--token`.
    pub token: bool,
    /// `--context`.
    pub context: bool,
    /// `--backbone`.
    pub backbone: bool,
}

impl FromEnvironment {
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let from_environment = |id: &str| matches.value_source(id) == Some(ValueSource::EnvVariable);
        Self {
            server: from_environment("server"),
            token: from_environment("token"),
            context: from_environment("context"),
            backbone: matches
                .subcommand()
                .filter(|(command, _)| ["dev", "serve", "doctor"].contains(command))
                .is_some_and(|(_, matches)| matches.value_source("backbone") == Some(ValueSource::EnvVariable)),
        }
    }
}

/// What `--version` prints: also which backbones this binary has.
static LONG_VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{}\nbackbones: {}", env!("CARGO_PKG_VERSION"), crate::compose::built_in().join(", ")));

impl Globals {
    /// The gateway to speak to.
    pub fn server(&self) -> Server {
        self.server.clone().unwrap_or_default()
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// What the API gave, one document a line.
    Json,
}

/// A command.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a gateway for development: embedded log, loopback only, topics created on first use
    Dev(Dev),
    /// Run a gateway in production, as a config file says
    Serve(Serve),
    /// What a running gateway is asked for.
    #[command(flatten)]
    Client(Client),
    /// Print what a shell needs to complete commands and options
    Completion(Completion),
    /// Validate resource files without a gateway; every fault is told with its file, line and remedy
    Check(Check),
}

/// Arguments of `dev`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  tidegate dev --resources ./resources")]
pub struct Dev {
    /// Folder of YAML resources, watched for changes
    #[arg(long, value_name = "DIR")]
    pub resources: Option<PathBuf>,
    /// Folder that keeps the embedded log [default: ./.tidegate]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Broker to use in place of the embedded log, such as nats://127.0.0.1:4222; with credentials only in the variable
    #[arg(long, value_name = "URL", env = BACKBONE_VARIABLE, hide_env_values = true)]
    pub backbone: Option<String>,
    /// Where to listen for HTTP; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3500", value_parser = values::address)]
    pub http: SocketAddr,
    /// Where to listen for gRPC; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:50001", value_parser = values::address)]
    pub grpc: SocketAddr,
    /// File to write {"http", "grpc", "backbone"} to once the gateway serves
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
}

/// Arguments of `serve`. What is given here takes the place of what the config file says.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  tidegate serve --config gateway.yaml --resources /etc/tidegate/resources")]
pub struct Serve {
    /// Config file (a Gateway resource)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Folder of YAML resources, watched for changes
    #[arg(long, value_name = "DIR")]
    pub resources: Option<PathBuf>,
    /// Broker to use in place of the one in the config file, whose other settings of a broker stay where it is of the same kind
    #[arg(long, value_name = "URL", env = BACKBONE_VARIABLE, hide_env_values = true)]
    pub backbone: Option<String>,
    /// Where to listen for HTTP, in place of the config file's address; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::address)]
    pub http: Option<SocketAddr>,
    /// Where to listen for gRPC, in place of the config file's address; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", value_parser = values::address)]
    pub grpc: Option<SocketAddr>,
    /// File to write {"http", "grpc", "backbone"} to once the gateway serves
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
}

/// Arguments of `completion`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tidegate completion bash > ~/.local/share/bash-completion/completions/tidegate
  tidegate completion zsh > \"${fpath[1]}/_tidegate\"
  tidegate completion fish > ~/.config/fish/completions/tidegate.fish")]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// Resource files, or folders of them
    #[arg(required = true, value_name = "FILES")]
    pub files: Vec<PathBuf>,
}

#[cfg(test)]
mod tests;
