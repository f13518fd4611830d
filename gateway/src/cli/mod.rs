//! The command line: one table of commands, and the client commands, which speak to a gateway over its HTTP API.
//!
//! [`parse`] reads the process arguments. `dev`, `serve` and `check` are carried out by whoever called it; every other
//! command is a [`client::Command`] for [`client::run`], which needs nothing but a server's address.
//!
//! Standard output carries results only, standard error everything else: errors, notes, progress, and what to type
//! next. Colours, progress and hints appear on a terminal alone, so that a script sees the same bytes every time.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | refused or failed |
//! | 2 | wrong usage |
//! | 3 | outcome unknown: the change may have been made, or may still be |

mod arguments;
pub mod client;
pub mod server;

pub use arguments::{
    Arguments, Check, Client, Command, DeadLetters, Dev, Globals, Output, Publish, Serve, Server, Subscriptions, Tail,
    Token, Topics,
};

/// Reads the arguments of the process. Wrong usage, `--help` and `--version` end the process, as is usual.
pub fn parse() -> Arguments {
    <Arguments as clap::Parser>::parse()
}
