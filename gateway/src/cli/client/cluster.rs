//! `cluster` and `apps`: what a server says of itself.

use http::Method;
use serde::Deserialize;

use super::api::Call;
use super::failure::Failure;
use super::table::Table;
use super::text::printable;
use super::{Context, json as documents};
use crate::cli::arguments::{Apps, Cluster};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClusterDocument {
    nodes: Vec<Node>,
    #[serde(default)]
    slots: Vec<Slot>,
    #[serde(default)]
    missing_slots: Vec<u32>,
    backbone: Backbone,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    http: String,
    version: String,
    started_at: String,
    uptime_seconds: u64,
    ready: bool,
    slots: Vec<u32>,
}

#[derive(Debug, Deserialize)]
struct Slot {
    slot: u32,
    epoch: u64,
    owner: Option<String>,
    http: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backbone {
    broker: String,
    version: Option<String>,
    unreachable: Option<String>,
    durability: String,
    slots: u32,
    partitions_default: u32,
}

#[derive(Debug, Deserialize)]
struct App {
    id: String,
    endpoints: Vec<String>,
    health: Option<Health>,
    file: String,
}

#[derive(Debug, Deserialize)]
struct Health {
    path: String,
    interval: String,
    timeout: String,
    threshold: u32,
}

/// Carries out `cluster`.
pub(super) async fn cluster(context: &mut Context<'_>, command: Cluster) -> Result<(), Failure> {
    let answer = context.api.call(Call::new(Method::GET, &["cluster"])).await?;
    if context.wants_json() {
        return match command {
            Cluster::Show => context.console.line(&documents::one_line(&answer.body)),
            Cluster::List | Cluster::Slots => {
                let document: serde_json::Value = documents::read(&answer.body)?;
                let many = if matches!(command, Cluster::List) { "nodes" } else { "slots" };
                for one in document[many].as_array().into_iter().flatten() {
                    context.console.line(&one.to_string())?;
                }
                Ok(())
            }
        };
    }
    let document: ClusterDocument = documents::read(&answer.body)?;
    match command {
        Cluster::Show => {
            backbone(context, &document.backbone)?;
            if !document.missing_slots.is_empty() {
                let missing = ranges(&document.missing_slots);
                context
                    .console
                    .line(&format!("{:<11} {missing} (no gateway owns them; their events wait)", "missing"))?;
            }
            context.console.line("")?;
            nodes(context, &document.nodes)
        }
        Cluster::List => nodes(context, &document.nodes),
        Cluster::Slots => slots(context, &document.slots),
    }
}

fn backbone(context: &mut Context<'_>, backbone: &Backbone) -> Result<(), Failure> {
    let Backbone { broker, version, unreachable, durability, slots, partitions_default } = backbone;
    let version = version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    let reached = unreachable.as_ref().map(|reason| format!(", not reached: {reason}")).unwrap_or_default();
    for (name, value) in [
        ("backbone", printable(&format!("{broker}{version}{reached}")).into_owned()),
        ("durability", printable(durability).into_owned()),
        ("slots", slots.to_string()),
        ("partitions", format!("{partitions_default} for a new topic")),
    ] {
        context.console.line(&format!("{name:<11} {value}"))?;
    }
    Ok(())
}

fn nodes(context: &mut Context<'_>, nodes: &[Node]) -> Result<(), Failure> {
    let mut table = Table::new(&["NODE", "VERSION", "READY", ">UPTIME", "SLOTS", "STARTED"]);
    for node in nodes {
        table.push(vec![
            printable(&node.http).into_owned(),
            printable(&node.version).into_owned(),
            if node.ready { "yes" } else { "no" }.to_owned(),
            uptime(node.uptime_seconds),
            ranges(&node.slots),
            printable(&node.started_at).into_owned(),
        ]);
    }
    context.console.table(&table.lines())
}

fn slots(context: &mut Context<'_>, slots: &[Slot]) -> Result<(), Failure> {
    let mut table = Table::new(&[">SLOT", ">EPOCH", "OWNER", "NODE"]);
    let text =
        |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), |text| printable(text).into_owned());
    for slot in slots {
        table.push(vec![slot.slot.to_string(), slot.epoch.to_string(), text(&slot.owner), text(&slot.http)]);
    }
    context.console.table(&table.lines())
}

/// Numbers in their order, neighbours together: `0,3-5`.
fn ranges(numbers: &[u32]) -> String {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    if parts.is_empty() {
        return "-".to_owned();
    }
    let part = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

/// In the two largest units that say something.
fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// Carries out `apps`.
pub(super) async fn apps(context: &mut Context<'_>, command: &Apps) -> Result<(), Failure> {
    let answer = context.api.call(Call::new(Method::GET, &["apps"])).await?;
    let Apps::Show { id: wanted } = command else { return list(context, &answer.body) };
    let missing =
        || Failure::Local(format!("there is no app {}; declare it in a resource file (kind: App)", printable(wanted)));
    if context.wants_json() {
        let documents: Vec<serde_json::Value> = documents::read(&answer.body)?;
        let found = documents.iter().find(|document| document["id"] == wanted.as_str()).ok_or_else(missing)?;
        return context.console.line(&found.to_string());
    }
    let apps: Vec<App> = documents::read(&answer.body)?;
    let app = apps.iter().find(|app| app.id == *wanted).ok_or_else(missing)?;
    let health = app.health.as_ref().map_or_else(
        || "not asked for".to_owned(),
        |Health { path, interval, timeout, threshold }| {
            format!("{path} every {interval}, within {timeout}, unhealthy after {threshold} bad answers")
        },
    );
    for (name, value) in [
        ("id", app.id.clone()),
        ("endpoints", app.endpoints.join(", ")),
        ("health", health),
        ("file", app.file.clone()),
    ] {
        context.console.line(&format!("{name:<10} {}", printable(&value)))?;
    }
    Ok(())
}

fn list(context: &mut Context<'_>, body: &str) -> Result<(), Failure> {
    if context.wants_json() {
        let apps: Vec<Box<serde_json::value::RawValue>> = documents::read(body)?;
        for app in apps {
            context.console.line(&documents::one_line(app.get()))?;
        }
        return Ok(());
    }
    let apps: Vec<App> = documents::read(body)?;
    if apps.is_empty() {
        context.console.note("there are no apps; declare one in a resource file (kind: App)");
        return Ok(());
    }
    let mut table = Table::new(&["ID", "ENDPOINTS", "HEALTH", "FILE"]);
    for app in &apps {
        table.push(vec![
            printable(&app.id).into_owned(),
            printable(&app.endpoints.join(", ")).into_owned(),
            app.health.as_ref().map_or_else(|| "-".to_owned(), |health| printable(&health.path).into_owned()),
            printable(&app.file).into_owned(),
        ]);
    }
    context.console.table(&table.lines())
}
