//! The commands that a running gateway carries out, as a client of its HTTP API.
//!
//! [`run`] is the whole of it for `main`. Inside, every command takes a `Context` (the API, the console, the world) and
//! gives a `Failure` or nothing, so that tests run commands against a server of their own and read what was printed.

mod api;
mod apply;
mod bench;
mod bindings;
mod cluster;
mod console;
mod contexts;
mod dead_letters;
mod doctor;
mod failure;
mod json;
mod log_level;
mod migrate;
mod plan;
mod problem;
mod publish;
mod subscriptions;
mod table;
mod tail;
mod text;
mod topics;
mod why;

use std::process::ExitCode;

use tidegate_backbone::Environment;
use tidegate_resources::process_variable;

pub use super::arguments::Client as Command;
use super::arguments::{Globals, Output, Server};
use super::contexts::resolve;
use api::Api;
use console::Console;
use failure::Failure;

/// What a command works with.
struct Context<'a> {
    api: Api,
    console: Console,
    environment: &'a Environment,
    globals: &'a Globals,
}

impl Context<'_> {
    fn wants_json(&self) -> bool {
        self.globals.output == Output::Json
    }

    /// The option that a command needs to speak to the same gateway, with a blank before it; none for the default one.
    fn server_option(&self) -> String {
        match self.globals.server().to_string() {
            server if server == Server::DEFAULT => String::new(),
            server => format!(" --server {server}"),
        }
    }

    /// Says on a terminal what to type next.
    fn suggest(&mut self, command: &str) {
        let server = self.server_option();
        self.console.hint(&format!("next: tidegate {command}{server}"));
    }
}

/// Carries a command out on a runtime of its own and says how it ended. Errors have been printed by then.
///
/// `environment` gives time and randomness and owns the tasks; an interrupt (Ctrl-C) stops it while a topic is followed.
pub fn run(command: &Command, globals: &Globals, environment: &Environment) -> ExitCode {
    let mut console = Console::system();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            console.error(&Failure::Local(format!("the command cannot begin: {error}")), &globals.server());
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        if matches!(command, Command::Tail(_) | Command::Bench(_)) {
            let stop = environment.stopping().clone();
            environment.spawn(async move {
                // Without a handler an interrupt ends the process at once, which is an end as well.
                if tokio::signal::ctrl_c().await.is_ok() {
                    stop.cancel();
                }
            });
        }
        execute(command, globals, console, environment).await
    });
    // A read of standard input that is still waiting must not hold the end up.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// The text of a file, or of standard input for `-`, within what a client sends at once.
async fn text_of(context: &mut Context<'_>, path: &std::path::Path) -> Result<String, Failure> {
    use tokio::io::AsyncReadExt as _;
    let unreadable = |error: std::io::Error| Failure::Local(format!("{}: cannot be read: {error}", path.display()));
    let mut text = String::new();
    let most = tidegate_schemas::limits::CLIENT_FILE_BYTES;
    if path.as_os_str() == "-" {
        let input = context.console.input.take();
        let input = input.ok_or_else(|| Failure::Local("standard input is not there".to_owned()))?;
        input.take(most).read_to_string(&mut text).await.map_err(unreadable)?;
    } else {
        let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        file.take(most).read_to_string(&mut text).await.map_err(unreadable)?;
    }
    Ok(text)
}

/// Carries a command out and gives the exit code.
async fn execute(command: &Command, globals: &Globals, mut console: Console, environment: &Environment) -> u8 {
    if let Command::Context(command) = command {
        let Err(failure) = contexts::run(&mut console, globals, command).await else { return 0 };
        console.error(&failure, &globals.server());
        return failure.exit_code();
    }
    let resolved = resolve(globals, &process_variable).map_err(Failure::Local);
    let resolved = resolved.and_then(|globals| Ok((Api::new(&globals, environment)?, globals)));
    let (api, globals) = match resolved {
        Ok((api, globals)) => (api, globals),
        Err(failure) => {
            console.error(&failure, &globals.server());
            return failure.exit_code();
        }
    };
    let globals = &globals;
    let mut context = Context { api, console, environment, globals };
    let outcome = match command {
        Command::Publish(arguments) => publish::run(&mut context, arguments).await,
        Command::Tail(arguments) => tail::run(&mut context, arguments).await,
        Command::Why(arguments) => why::run(&mut context, arguments).await,
        Command::Plan(arguments) => plan::run(&mut context, arguments).await,
        Command::Topics(command) => topics::run(&mut context, command).await,
        Command::Subscriptions(command) => subscriptions::run(&mut context, command).await,
        Command::Bindings(command) => bindings::run(&mut context, command).await,
        Command::DeadLetters(command) => dead_letters::run(&mut context, command).await,
        Command::Apply(arguments) => apply::run(&mut context, arguments).await,
        Command::LogLevel(arguments) => log_level::run(&mut context, arguments).await,
        Command::Apps(command) => cluster::apps(&mut context, command).await,
        Command::Cluster(command) => cluster::cluster(&mut context, command.command.unwrap_or_default()).await,
        Command::Migrate(arguments) => migrate::run(&mut context, arguments).await,
        Command::Bench(arguments) => bench::run(&mut context, arguments).await,
        Command::Doctor(arguments) => doctor::run(&mut context, arguments).await,
        // Carried out above: it speaks to no gateway.
        Command::Context(_) => Ok(()),
    };
    match outcome {
        Ok(()) => 0,
        // Whoever read the output has seen enough, as with `| head`. A publish that stopped half way is another matter.
        Err(Failure::Output(error))
            if error.kind() == std::io::ErrorKind::BrokenPipe && !matches!(command, Command::Publish(_)) =>
        {
            0
        }
        Err(failure) => {
            context.console.error(&failure, &globals.server());
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests;
