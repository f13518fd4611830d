//! Commands as they are typed, against a server that gives canned answers.

mod bench;
mod failures;
mod local;
mod operate;
mod publish;
mod server;
mod tail;
mod why;

use std::io::{self, Write};
use std::sync::Arc;

use clap::Parser as _;
use parking_lot::Mutex;
use tidegate_backbone::Environment;

use super::console::Console;
use super::execute;
use crate::cli::{Arguments, Command};
pub(super) use server::{Answer, Recorded, Server};

/// What a command did.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) code: u8,
    pub(super) out: String,
    pub(super) err: String,
}

/// A stream that a test reads afterwards.
#[derive(Clone, Default)]
struct Shared {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Whoever reads has gone.
    closed: bool,
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.bytes.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().clone()).unwrap()
    }
}

/// A command line against a server.
pub(super) struct Invocation<'a> {
    pub(super) arguments: &'a [&'a str],
    pub(super) url: &'a str,
    pub(super) stdin: &'static [u8],
    pub(super) attended: bool,
    pub(super) closed_output: bool,
    pub(super) environment: Environment,
}

impl<'a> Invocation<'a> {
    pub(super) fn new(url: &'a str, arguments: &'a [&'a str]) -> Self {
        Self { arguments, url, stdin: b"", attended: false, closed_output: false, environment: Environment::system() }
    }

    pub(super) async fn run(self) -> Outcome {
        let own = ["tidegate", "--server", self.url];
        let arguments = Arguments::try_parse_from(own.iter().chain(self.arguments)).unwrap();
        let Command::Client(command) = &arguments.command else { panic!("no client command") };
        let out = Shared { closed: self.closed_output, ..Shared::default() };
        let err = Shared::default();
        let console = Console {
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            input: Some(Box::new(self.stdin)),
            out_colours: false,
            out_symbols: self.attended,
            out_width: self.attended.then_some(100),
            err_colours: false,
            attended: self.attended,
            progress: None,
        };
        let code = execute(command, &arguments.globals, console, &self.environment).await;
        Outcome { code, out: out.text(), err: err.text() }
    }
}

/// Runs a command that nobody watches.
pub(super) async fn invoke(url: &str, arguments: &[&str]) -> Outcome {
    Invocation::new(url, arguments).run().await
}

/// A problem document as a gateway writes it.
pub(super) fn problem(status: u16, code: &str, title: &str, detail: &str) -> Answer {
    let document = serde_json::json!({
        "type": format!("https://tidegate.dev/errors#{code}"),
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
    });
    Answer::problem(status, document)
}
