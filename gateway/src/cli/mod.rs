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
mod contexts;
pub mod server;

pub use arguments::{
    Apply, Apps, Arguments, Bench, Bindings, Check, Client, Cluster, ClusterArguments, Command, Completion, Contexts,
    DeadLetters, Dev, Doctor, FromEnvironment, Globals, LogLevel, Output, Publish, RedriveLetters, Serve, Server,
    Subscriptions, Tail, Token, Topics,
};
use clap::{CommandFactory as _, FromArgMatches as _};

/// Reads the arguments of the process. Wrong usage, `--help` and `--version` end the process, as is usual.
pub fn parse() -> Arguments {
    let matches = Arguments::command().get_matches();
    let mut arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    arguments.globals.from_environment = FromEnvironment::of(&matches);
    arguments
}

/// Writes what a shell needs to complete commands and options.
pub fn write_completion(shell: clap_complete::Shell, out: &mut dyn std::io::Write) {
    let mut command = Arguments::command();
    clap_complete::generate(shell, &mut command, "tidegate", &mut BrokenPipe(out));
}

/// The library panics where it cannot write; a reader that went away has seen enough.
struct BrokenPipe<'a>(&'a mut dyn std::io::Write);

impl std::io::Write for BrokenPipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}
