//! The commands that are a gateway: `dev` and `serve`.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use tracing::info;

use super::arguments::BACKBONE_VARIABLE;
use super::{Dev, FromEnvironment, Serve};
use crate::compose::{self, Settings};
use crate::lifecycle::Signals;
use crate::sink::AddressPolicy;
use crate::telemetry::{logging, traces};
use tidegate_resources::config::{self, Backbone, Gateway, LogFormat};
use tidegate_resources::process_variable;

/// Where `dev` keeps the embedded log.
pub(super) const DATA: &str = "./.tidegate";
/// The exit code of wrong usage.
const MISUSED: u8 = 2;
/// The ready line where there is no gRPC listener.
const NO_GRPC: &str = "off";

/// What both commands come to.
struct Plan {
    settings: Settings,
    backbone: String,
    log_level: String,
    log_format: LogFormat,
    ready_file: Option<PathBuf>,
    greet: bool,
}

/// Runs `dev` until it is told to end.
pub fn dev(arguments: Dev, from_environment: &FromEnvironment) -> ExitCode {
    let backbone = match (named_backbone(arguments.backbone, from_environment), arguments.data) {
        (Err(reason), _) => return misused(&reason),
        // What was typed goes before what the process environment says.
        (Ok(Some(_)), Some(data)) if from_environment.backbone => Backbone::embedded(data),
        (Ok(Some(_)), Some(_)) => {
            return misused(
                "--data names the folder of the embedded log, and --backbone another backbone; leave one of them out \
                 (--backbone embedded:PATH is the same as --data PATH)",
            );
        }
        (Ok(Some(backbone)), None) => backbone,
        (Ok(None), data) => Backbone::embedded(data.unwrap_or_else(|| PathBuf::from(DATA))),
    };
    let defaults = Gateway::default();
    let traces = match traces::Options::resolve(None, &process_variable) {
        Ok(traces) => traces,
        Err(error) => return fail(&error.to_string()),
    };
    run(Plan {
        backbone: backbone.to_string(),
        settings: Settings {
            http: arguments.http,
            backbone,
            resources: arguments.resources,
            create_topics_on_first_use: true,
            request_sinks: AddressPolicy::PublicOrLoopback,
            development: true,
            limits: defaults.limits,
            log_filter: None,
            traces,
        },
        log_level: defaults.telemetry.log_level.as_str().to_owned(),
        log_format: LogFormat::Text,
        ready_file: arguments.ready_file,
        greet: true,
    })
}

/// Runs `serve` until it is told to end.
pub fn serve(arguments: Serve, from_environment: &FromEnvironment) -> ExitCode {
    let gateway = match config::load(&arguments.config, &process_variable) {
        Ok(gateway) => gateway,
        Err(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            return fail(&faults.join("\n"));
        }
    };
    let backbone = match (named_backbone(arguments.backbone, from_environment), gateway.backbone) {
        (Err(reason), _) => return misused(&reason),
        (Ok(Some(named)), Some(configured)) => configured.moved_to(named),
        (Ok(Some(backbone)), None) | (Ok(None), Some(backbone)) => backbone,
        (Ok(None), None) => {
            return fail(&format!(
                "{} names no backbone; add `backbone: embedded:./data` to its spec, or pass --backbone",
                arguments.config.display()
            ));
        }
    };
    let traces = match traces::Options::resolve(gateway.telemetry.otlp.as_ref(), &process_variable) {
        Ok(traces) => traces,
        Err(error) => return fail(&error.to_string()),
    };
    run(Plan {
        backbone: backbone.to_string(),
        settings: Settings {
            http: arguments.http.unwrap_or(gateway.http),
            backbone,
            resources: arguments.resources.or(gateway.resources),
            create_topics_on_first_use: gateway.create_topics_on_first_use,
            request_sinks: if gateway.private_sinks { AddressPolicy::Any } else { AddressPolicy::PublicOnly },
            development: false,
            limits: gateway.limits,
            log_filter: None,
            traces,
        },
        log_level: gateway.telemetry.log_level.as_str().to_owned(),
        log_format: gateway.telemetry.log_format,
        ready_file: arguments.ready_file,
        greet: false,
    })
}

/// The backbone that `--backbone` names, or the variable in its place, where secrets may stand.
pub(super) fn named_backbone(
    url: Option<String>,
    from_environment: &FromEnvironment,
) -> Result<Option<Backbone>, String> {
    let Some(url) = url else { return Ok(None) };
    let (place, read) = if from_environment.backbone {
        (BACKBONE_VARIABLE, Backbone::of_variable(&url))
    } else {
        ("--backbone", Backbone::of_argument(&url))
    };
    read.map(Some).map_err(|reason| format!("{place} {reason}"))
}

fn run(plan: Plan) -> ExitCode {
    let format = match plan.log_format {
        LogFormat::Text => logging::Format::Pretty,
        LogFormat::Json => logging::Format::Json,
    };
    let filter = compose::log_filter(&plan.log_level);
    let options = logging::Options { format, filter };
    let mut plan = plan;
    match logging::install(options, process_variable(logging::FILTER_VARIABLE)) {
        Ok(filter) => plan.settings.log_filter = Some(filter),
        Err(error) => return fail(&error.to_string()),
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tidegate").build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime cannot be started: {error}")),
    };
    runtime.block_on(run_until_told(plan))
}

async fn run_until_told(plan: Plan) -> ExitCode {
    // Taken over before anything is opened: a signal that comes early must not cut recovery short.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("signals cannot be taken over: {error}")),
    };
    let running = tokio::select! {
        started = compose::start(plan.settings) => match started {
            Ok(running) => running,
            Err(error) => return fail(&error.to_string()),
        },
        name = signals.next() => {
            info!(signal = name, "told to end before everything was open");
            return ExitCode::SUCCESS;
        }
    };
    if let Some(path) = &plan.ready_file
        && let Err(error) = write_ready_file(path, running.http, &plan.backbone)
    {
        return fail(&format!("the ready file {} cannot be written: {error}", path.display()));
    }
    say(&format!("ready http={} grpc={NO_GRPC} backbone={}", running.http, plan.backbone));
    if plan.greet {
        greet(running.http);
    }
    let name = signals.next().await;
    info!(signal = name, "stopping; once more ends at once");
    tokio::select! {
        clean = running.parts.stop() => if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        name = signals.next() => {
            info!(signal = name, "ending at once; what was acknowledged is durable");
            ExitCode::FAILURE
        }
    }
}

/// Written beside and renamed, so that nobody reads half of it.
fn write_ready_file(path: &Path, http: SocketAddr, backbone: &str) -> std::io::Result<()> {
    let document = json!({ "http": http.to_string(), "grpc": null, "backbone": backbone });
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, format!("{document}\n"))?;
    std::fs::rename(&beside, path)
}

/// The next commands to paste, for a person in front of a terminal.
fn greet(http: SocketAddr) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let program = std::env::args().next().unwrap_or_else(|| "tidegate".to_owned());
    let server = if http.port() == 3500 { String::new() } else { format!(" --server http://{http}") };
    say(&format!(
        "\nIn another terminal, follow a topic and publish to it:\n  {program} tail orders{server}\n  {program} publish \
         orders --type com.example.order.placed --data '{{\"amount\": 7}}'{server}\nor with any HTTP client:\n  curl -i \
         http://{http}/topics/orders -H 'content-type: application/json' -d '{{\"amount\": 7}}'\n"
    ));
}

fn say(text: &str) {
    // Nobody is left to tell when stderr itself is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn misused(reason: &str) -> ExitCode {
    let _ = fail(reason);
    ExitCode::from(MISUSED)
}

fn fail(reason: &str) -> ExitCode {
    for line in reason.lines() {
        say(&format!("error: {line}"));
    }
    ExitCode::FAILURE
}
