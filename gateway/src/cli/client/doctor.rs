//! `doctor`: looks at what a gateway needs and says what is wrong, and how to mend it. With `--config` it looks at what the
//! file names; without, at what `tidegate dev` would use. It changes nothing but for one small file that it removes again.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tidegate_resources::config::{self, Backbone, BackboneUrl, Gateway, Host};
use tidegate_resources::{check, load, process_variable};
use tidegate_schemas::limits;

use super::Context;
use super::api::Call;
use super::bindings;
use super::console::Style;
use super::failure::Failure;
use super::text::{bytes, printable};
use crate::cli::arguments::Doctor;
use crate::cli::server;
use crate::telemetry::metrics::max_files;
use crate::telemetry::traces;

/// Less free space than this is too little: a few segments.
const FREE_LEAST_BYTES: u64 = 4 * limits::SEGMENT_BYTES;
/// Less than this is worth a word.
const FREE_GOOD_BYTES: u64 = 64 * limits::SEGMENT_BYTES;
/// What a server of a broker is given to take a connection.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);
/// Clocks that differ by more than this make times of two machines hard to compare.
const CLOCK_SKEW: Duration = Duration::from_secs(5);
/// 2025-01-01: a clock before the product existed was never set.
const CLOCK_LEAST_MILLISECONDS: u64 = 1_735_689_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Doubtful,
    Bad,
}

/// What was looked at, and what was found.
#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    what: &'static str,
    found: String,
    /// How to mend it, where there is something to mend.
    mend: String,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, what, found: found.into(), mend: String::new() }
    }

    fn doubtful(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { verdict: Verdict::Doubtful, what, found: found.into(), mend: mend.into() }
    }

    fn bad(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, what, found: found.into(), mend: mend.into() }
    }

    fn word(&self) -> &'static str {
        match self.verdict {
            Verdict::Good => "ok",
            Verdict::Doubtful => "warn",
            Verdict::Bad => "fail",
        }
    }
}

/// What is to be looked at.
struct Subject {
    http: SocketAddr,
    backbone: Option<Backbone>,
    resources: Option<PathBuf>,
    connections: usize,
}

/// Carries out `doctor`. Fails where something was found that keeps a gateway from working.
pub(super) async fn run(context: &mut Context<'_>, arguments: &Doctor) -> Result<(), Failure> {
    let mut findings = Vec::new();
    let server = server(context).await;
    let reachable = server.iter().any(|finding| finding.what == "server" && finding.verdict == Verdict::Good);
    findings.push(Finding::good("backbones", format!("this binary has {}", crate::compose::built_in().join(", "))));
    if let Some(subject) = subject(context, arguments, &mut findings) {
        findings.push(port(subject.http, reachable));
        if let Some(named) = &subject.backbone {
            findings.extend(backbone(named).await);
        }
        findings.extend(resources(subject.resources.as_deref()));
        findings.extend(further_brokers(subject.resources.as_deref()).await);
        findings.push(files(subject.connections));
    }
    if reachable {
        findings.extend(bindings::standings(context).await.into_iter().map(binding));
    }
    findings.push(clock(context.environment.clock.unix_milliseconds()));
    findings.push(telemetry(arguments));
    // One that is asked for by name is expected to be there; otherwise it may be what comes next.
    let asked_for = context.globals.server.is_some();
    findings.extend(server.into_iter().map(|finding| match finding.verdict {
        Verdict::Bad if !asked_for => Finding { verdict: Verdict::Doubtful, ..finding },
        _ => finding,
    }));
    print(context, &findings)?;
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    if bad == 0 {
        return Ok(());
    }
    Err(Failure::Local(format!("{} that must be mended", super::text::counted(bad as u64, "fault"))))
}

fn print(context: &mut Context<'_>, findings: &[Finding]) -> Result<(), Failure> {
    for finding in findings {
        if context.wants_json() {
            let mut document = json!({ "verdict": finding.word(), "what": finding.what, "found": finding.found });
            if !finding.mend.is_empty() {
                document["mend"] = Value::from(finding.mend.as_str());
            }
            context.console.line(&document.to_string())?;
            continue;
        }
        let word = format!("{:<4}", finding.word());
        let word = match finding.verdict {
            Verdict::Good => context.console.styled(Style::Faint, &word),
            Verdict::Doubtful => context.console.styled(Style::Strong, &word),
            Verdict::Bad => context.console.styled(Style::Error, &word),
        };
        for (index, line) in finding.found.lines().enumerate() {
            let (word, what) = if index == 0 { (word.as_str(), finding.what) } else { ("    ", "") };
            context.console.line(&format!("{word}  {what:<12} {}", printable(line)))?;
        }
        if !finding.mend.is_empty() {
            context.console.line(&format!("      {:<12} {}", "", printable(&finding.mend)))?;
        }
    }
    Ok(())
}

fn subject(context: &Context<'_>, arguments: &Doctor, findings: &mut Vec<Finding>) -> Option<Subject> {
    let from_environment = &context.globals.from_environment;
    let named = match server::named_backbone(arguments.backbone.clone(), from_environment) {
        Ok(named) => named,
        Err(reason) => {
            findings.push(Finding::bad("backbone", reason, "correct it, or leave it out"));
            return None;
        }
    };
    let Some(path) = &arguments.config else {
        let defaults = Gateway::default();
        return Some(Subject {
            http: defaults.http,
            backbone: Some(named.unwrap_or_else(|| Backbone::embedded(server::DATA))),
            resources: None,
            connections: defaults.limits.connections,
        });
    };
    match config::load(path, &process_variable) {
        Ok(gateway) => {
            findings.push(Finding::good("config", format!("{} is valid", path.display())));
            let backbone = match (named, gateway.backbone) {
                (Some(named), Some(configured)) => Some(configured.moved_to(named)),
                (named, configured) => named.or(configured),
            };
            if backbone.is_none() {
                findings.push(Finding::doubtful(
                    "backbone",
                    "the config names none",
                    "add `backbone: embedded:./data` to its spec, or pass --backbone to serve",
                ));
            }
            Some(Subject {
                http: gateway.http,
                backbone,
                resources: gateway.resources,
                connections: gateway.limits.connections,
            })
        }
        Err(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            findings.push(Finding::bad(
                "config",
                faults.join("\n"),
                "correct the file; tidegate check reads it as well",
            ));
            None
        }
    }
}

/// What the backbone needs: a folder with room, or servers that answer.
async fn backbone(backbone: &Backbone) -> Vec<Finding> {
    let mut findings = vec![Finding::good("backbone", backbone.to_string())];
    match &backbone.url {
        BackboneUrl::Embedded { path } => findings.extend(directory(path)),
        BackboneUrl::Broker { hosts, .. } => {
            for host in hosts {
                findings.push(reach(host).await);
            }
        }
        _ => {}
    }
    findings
}

/// Whether a server of a broker takes connections.
async fn reach(host: &Host) -> Finding {
    const MEND: &str = "start the broker, or correct the backbone's URL";
    match tokio::time::timeout(REACH_TIMEOUT, tokio::net::TcpStream::connect(host.to_string())).await {
        Ok(Ok(_)) => Finding::good("broker", format!("{host} takes connections")),
        Ok(Err(error)) => Finding::bad("broker", format!("{host} cannot be reached: {error}"), MEND),
        Err(_) => Finding::bad("broker", format!("{host} does not answer within {} s", REACH_TIMEOUT.as_secs()), MEND),
    }
}

/// Whether a gateway could listen there, or one does.
fn port(address: SocketAddr, server_reachable: bool) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::good("port", format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && server_reachable => {
            Finding::good("port", format!("{address} is in use, and a gateway answers"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::doubtful(
            "port",
            format!("{address} is in use"),
            format!(
                "find out by whom: ss -ltnp 'sport = :{}'; or give the gateway another with --http",
                address.port()
            ),
        ),
        Err(error) => Finding::bad("port", format!("{address}: {error}"), "choose another address with --http"),
    }
}

/// Whether the data can be written, and what room there is.
fn directory(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    // Where it is not there yet, what matters is whether it can be made.
    let existing = path.ancestors().find(|folder| folder.as_os_str().is_empty() || folder.exists());
    let existing = existing.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut findings = Vec::new();
    match tempfile_in(existing) {
        Ok(()) if existing == path => findings.push(Finding::good("data", format!("{shown} can be written"))),
        Ok(()) => findings.push(Finding::good("data", format!("{shown} is not there yet and can be made"))),
        Err(error) => findings.push(Finding::bad(
            "data",
            format!("{} cannot be written: {error}", existing.display()),
            format!("make it writable for the user that runs the gateway: chown USER {}", existing.display()),
        )),
    }
    match rustix::fs::statvfs(existing) {
        Ok(system) => {
            let free = system.f_bavail.saturating_mul(system.f_frsize);
            let found = format!("{} free for {shown}", bytes(free));
            let mend = "free some, or put the data on another disk; a full disk stops every publish";
            findings.push(match free {
                free if free < FREE_LEAST_BYTES => Finding::bad("disk", found, mend),
                free if free < FREE_GOOD_BYTES => Finding::doubtful("disk", found, mend),
                _ => Finding::good("disk", found),
            });
        }
        Err(error) => findings.push(Finding::doubtful("disk", format!("the free space cannot be told: {error}"), "")),
    }
    findings
}

/// Writes a file, syncs it as the log does, and removes it.
fn tempfile_in(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(format!(".tidegate-doctor-{}", std::process::id()));
    let written = fs::OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| {
        std::io::Write::write_all(&mut file, b"ok")?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn resources(folder: Option<&Path>) -> Option<Finding> {
    let folder = folder?;
    let report = check(&[folder.to_owned()], &process_variable);
    Some(if report.is_ok() {
        Finding::good("resources", format!("{} is valid", folder.display()))
    } else {
        Finding::bad(
            "resources",
            report.to_string(),
            format!("correct them; see them again with: tidegate check {}", folder.display()),
        )
    })
}

/// The brokers beside the backbone. A gateway runs without them, and what goes there waits.
async fn further_brokers(folder: Option<&Path>) -> Vec<Finding> {
    let Some(Ok(resources)) = folder.map(|folder| load(&[folder.to_owned()], &process_variable)) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for broker in resources.brokers {
        let BackboneUrl::Broker { hosts, .. } = &broker.settings.url else { continue };
        for host in hosts {
            let reached = reach(host).await;
            let found = format!("{}: {}", broker.name, reached.found);
            findings.push(match reached.verdict {
                Verdict::Good => Finding::good("broker", found),
                _ => Finding::doubtful("broker", found, "start it, or correct the URL of the Broker"),
            });
        }
    }
    findings
}

/// How a binding stands, of which the gateway that runs knows more than can be seen from here: whether its queue or exchange is
/// there, and what its user may do with it.
fn binding(standing: bindings::Standing) -> Finding {
    let bindings::Standing { name, is_well, told, is_paused } = standing;
    if is_well {
        return Finding::good("binding", told);
    }
    let mend = if is_paused {
        format!("see to the message, and let it go on: tidegate bindings resume {name}")
    } else {
        "see to what it waits for; it goes on by itself then (docs/bindings.md has what it needs)".to_owned()
    };
    Finding::doubtful("binding", told, mend)
}

/// Each connection takes a file descriptor, and the log takes some.
fn files(connections: usize) -> Finding {
    const OTHERS: i64 = 256;
    let wanted = i64::try_from(connections).unwrap_or(i64::MAX).saturating_add(OTHERS);
    match max_files() {
        None => Finding::good("files", "no limit of open files"),
        Some(most) if most >= wanted => Finding::good("files", format!("{most} may be open")),
        Some(most) => Finding::doubtful(
            "files",
            format!("{most} may be open, and {connections} connections need {wanted}"),
            format!(
                "raise the limit (ulimit -n {wanted}, or LimitNOFILE={wanted} in the unit), or lower limits.connections"
            ),
        ),
    }
}

fn clock(now: u64) -> Finding {
    let shown = super::text::time(now).unwrap_or_default();
    if now < CLOCK_LEAST_MILLISECONDS {
        return Finding::bad("clock", format!("it says {shown}"), "set the clock: timedatectl set-ntp true");
    }
    Finding::good("clock", shown)
}

fn telemetry(arguments: &Doctor) -> Finding {
    let configured = arguments.config.as_ref().and_then(|path| config::load(path, &process_variable).ok());
    let otlp = configured.as_ref().and_then(|gateway| gateway.telemetry.otlp.as_ref());
    match traces::Options::resolve(otlp, &process_variable) {
        Ok(None) => Finding::good("traces", "off"),
        Ok(Some(options)) => Finding::good("traces", format!("to {}", options.endpoint)),
        Err(error) => Finding::bad("traces", error.to_string(), "correct the variable, or unset it"),
    }
}

/// Whether a gateway answers, of which version, and how its clock differs.
async fn server(context: &Context<'_>) -> Vec<Finding> {
    let url = context.globals.server();
    let answer = match context.api.call(Call::new(Method::GET, &["cluster"])).await {
        Ok(answer) => answer,
        Err(failure) => {
            let mut lines = failure.lines(&url).into_iter();
            let found = lines.next().unwrap_or_default();
            return vec![Finding::bad("server", found, lines.collect::<Vec<_>>().join("; "))];
        }
    };
    let document: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let version = document["nodes"][0]["version"].as_str().unwrap_or("unknown");
    let ours = env!("CARGO_PKG_VERSION");
    let mut findings = Vec::new();
    if version == ours {
        findings.push(Finding::good("server", format!("{url} answers, version {version}")));
    } else {
        let found = format!("{url} answers, version {version}; this command is of version {ours}");
        findings.push(Finding::doubtful("server", found, "use the command line of the server's version"));
    }
    if document["nodes"][0]["ready"] == false {
        findings.push(Finding::bad(
            "ready",
            "the server is not ready",
            "its log says why; GET /readyz tells the reason",
        ));
    }
    if let Some(theirs) = answer.date {
        let ours = context.environment.clock.unix_milliseconds();
        let skew = Duration::from_millis(theirs.abs_diff(ours));
        if skew > CLOCK_SKEW {
            let found = format!("the server's clock differs from this one by {} s", skew.as_secs());
            findings.push(Finding::doubtful("skew", found, "let both follow a time server: timedatectl set-ntp true"));
        }
    }
    findings
}
