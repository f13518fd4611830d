//! `migrate`: everything goes to another backbone, while publishing goes on.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::Call;
use super::failure::Failure;
use super::table::Table;
use super::text::{counted, printable};
use super::{Context, json as documents};
use crate::cli::arguments::{Migrate, MigrateArguments};

/// How often it is asked how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    phase: String,
    #[serde(default)]
    target: String,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    coordinator: String,
    started_at: Option<String>,
    moved_at: Option<String>,
    #[serde(default)]
    events: u64,
    behind: Option<u64>,
    #[serde(default)]
    late: u64,
    error: Option<String>,
    #[serde(default)]
    partitions: Vec<Partition>,
}

#[derive(Debug, Deserialize)]
struct Partition {
    topic: String,
    partition: u32,
    events: u64,
    sha256: String,
}

/// Carries out `migrate`.
pub(super) async fn run(context: &mut Context<'_>, arguments: &MigrateArguments) -> Result<(), Failure> {
    match (&arguments.command, &arguments.to) {
        (Some(Migrate::Status), _) => {
            let answer = context.api.call(Call::new(Method::GET, &["migration"])).await?;
            show(context, &answer.body)
        }
        (Some(Migrate::Cancel), _) => {
            context.api.call(Call::new(Method::DELETE, &["migration"])).await?;
            if !context.wants_json() {
                context.console.line("the migration was given up; what was copied stays on the other backbone")?;
            }
            Ok(())
        }
        (None, Some(to)) => {
            let body = json!({ "to": to }).to_string();
            let call = Call::new(Method::POST, &["migration"]).body("application/json", body);
            let answer = context.api.call(call).await?;
            if arguments.no_wait {
                return show(context, &answer.body);
            }
            follow(context).await
        }
        (None, None) => Err(Failure::Usage("say where to: `tidegate migrate --to BROKER`".to_owned())),
    }
}

/// Waits until it is at its end, or cannot go on.
async fn follow(context: &mut Context<'_>) -> Result<(), Failure> {
    let mut total = 0;
    let mut told = None;
    loop {
        let answer = context.api.call(Call::new(Method::GET, &["migration"])).await?;
        let document: Document = documents::read(&answer.body)?;
        let whole = document.events + document.behind.unwrap_or(0);
        if whole > total {
            total = whole;
            context.console.begin_count(total);
        }
        context.console.count(document.events, "event");
        if document.error.is_some() && document.error != told {
            let error = document.error.as_deref().unwrap_or_default();
            context.console.note(&format!("{}: {}", printable(&document.phase), printable(error)));
            told.clone_from(&document.error);
        }
        let failed = matches!(document.phase.as_str(), "failed" | "none");
        if !document.done && !failed {
            tokio::time::sleep(LOOK_INTERVAL).await;
            continue;
        }
        context.console.end_progress();
        if failed {
            let reason = document.error.unwrap_or_else(|| "somebody gave it up".to_owned());
            return Err(Failure::Local(format!("the migration does not go on: {}", printable(&reason))));
        }
        show(context, &answer.body)?;
        if !context.wants_json() {
            context.console.note(
                "events that are published here go to the new backbone; start gateways there to have them delivered, then stop \
                 this one",
            );
        }
        return Ok(());
    }
}

fn show(context: &mut Context<'_>, body: &str) -> Result<(), Failure> {
    if context.wants_json() {
        return context.console.line(&documents::one_line(body));
    }
    let document: Document = documents::read(body)?;
    let phase = match (document.phase.as_str(), document.done) {
        ("moved", true) => "moved, and gateways on the new backbone work".to_owned(),
        (phase, _) => printable(phase).into_owned(),
    };
    let mut lines = vec![("phase", phase)];
    if document.phase != "none" {
        lines.push(("to", printable(&document.target).into_owned()));
        lines.push(("by", printable(&document.coordinator).into_owned()));
        for (name, time) in [("begun", &document.started_at), ("moved", &document.moved_at)] {
            lines.extend(time.as_ref().map(|time| (name, printable(time).into_owned())));
        }
        let behind = document.behind.filter(|behind| *behind > 0);
        let behind = behind.map(|behind| format!(", {behind} to go")).unwrap_or_default();
        lines.push(("copied", format!("{}{behind}", counted(document.events, "event"))));
        if document.late > 0 {
            lines.push(("late", format!("{} passed on after the move", counted(document.late, "event"))));
        }
        lines.extend(document.error.as_ref().map(|error| ("error", printable(error).into_owned())));
    }
    for (name, value) in lines {
        context.console.line(&format!("{name:<11} {value}"))?;
    }
    if document.partitions.is_empty() {
        return Ok(());
    }
    context.console.line("")?;
    let mut table = Table::new(&["TOPIC", ">PARTITION", ">EVENTS", "SHA-256 OF BOTH SIDES"]);
    for Partition { topic, partition, events, sha256 } in &document.partitions {
        let sha256 = printable(sha256).into_owned();
        table.push(vec![printable(topic).into_owned(), partition.to_string(), events.to_string(), sha256]);
    }
    context.console.table(&table.lines())
}
