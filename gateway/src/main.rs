//! The `tidegate` binary: reads the command line and hands over.

use std::io::Write as _;
use std::process::ExitCode;

use tidegate::cli::{self, Command, server};
use tidegate_resources::{check, process_variable};

fn main() -> ExitCode {
    let arguments = cli::parse();
    match arguments.command {
        Command::Dev(dev) => server::dev(dev, &arguments.globals.from_environment),
        Command::Serve(serve) => server::serve(serve, &arguments.globals.from_environment),
        Command::Completion(completion) => {
            cli::write_completion(completion.shell, &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Check(files) => {
            let report = check(&files.files, &process_variable);
            let text = match arguments.globals.output {
                cli::Output::Text => report.to_string(),
                cli::Output::Json => serde_json::to_string(&report).unwrap_or_default(),
            };
            // A reader that went away has seen enough.
            let _ = writeln!(std::io::stdout(), "{text}");
            if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::Client(command) => {
            let environment = tidegate_backbone::Environment::system();
            cli::client::run(&command, &arguments.globals, &environment)
        }
    }
}
