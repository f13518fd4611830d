//! The one table of commands. The help texts are written for whoever types them.

mod client;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use client::{Client, DeadLetters, Publish, Subscriptions, Tail, Topics};
pub use values::{Server, Token};

/// One binary that turns the broker you run, or none, into an event mesh.
#[derive(Clone, Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
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
    #[arg(long, global = true, env = "TIDEGATE_SERVER", value_name = "URL", default_value = Server::DEFAULT)]
    pub server: Server,
    /// Bearer token to show to the gateway
    #[arg(long, global = true, env = "TIDEGATE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<Token>,
    /// How to print results: for people, or exactly what the API gave (one document a line where there are many)
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Output,
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
    /// Folder that keeps the embedded log
    #[arg(long, value_name = "DIR", default_value = "./.tidegate")]
    pub data: PathBuf,
    /// Broker to use in place of the embedded log, such as nats://127.0.0.1:4222
    #[arg(long, value_name = "URL")]
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
    /// Broker to use in place of the one in the config file
    #[arg(long, value_name = "URL")]
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

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// Resource files, or folders of them
    #[arg(required = true, value_name = "FILES")]
    pub files: Vec<PathBuf>,
}

#[cfg(test)]
mod tests;
