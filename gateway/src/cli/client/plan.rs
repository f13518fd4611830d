//! `plan`: what resource files would do to subscriptions and to the deliveries of recorded events.

use std::cell::RefCell;
use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;
use serde_json::json;
use tidegate_resources::{Diagnostic, load, process_variable, read_files};

use super::api::Call;
use super::failure::Failure;
use super::table::Table;
use super::text::{counted, printable};
use super::{Context, json as documents};
use crate::cli::arguments::Plan;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    subscriptions: Vec<Subscription>,
    topics: Vec<Topic>,
    missing_topics: Vec<Missing>,
    looked: Vec<Looked>,
}

#[derive(Debug, Deserialize)]
struct Subscription {
    name: String,
    action: String,
    #[serde(default)]
    changes: Vec<String>,
    from: Option<String>,
    before: u64,
    after: u64,
    added: Sample,
    removed: Sample,
    moved: Sample,
}

#[derive(Debug, Deserialize)]
struct Sample {
    count: u64,
    #[serde(default)]
    examples: Vec<Example>,
}

#[derive(Debug, Deserialize)]
struct Example {
    id: String,
    topic: String,
}

#[derive(Debug, Deserialize)]
struct Topic {
    name: String,
    action: String,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Missing {
    topic: String,
    subscriptions: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Looked {
    topic: String,
    events: u64,
    duplicates: u64,
    recorded: u64,
    since: Option<String>,
    limited: bool,
}

/// Carries out `plan`.
pub(super) async fn run(context: &mut Context<'_>, arguments: &Plan) -> Result<(), Failure> {
    // Read here first: every fault is told with its place before anything is asked.
    let used = RefCell::new(BTreeMap::new());
    let variables = |name: &str| {
        let value = process_variable(name);
        if let Some(value) = &value {
            used.borrow_mut().insert(name.to_owned(), value.clone());
        }
        value
    };
    let resources = load(&arguments.files, &variables).map_err(invalid)?;
    resources.warnings.iter().for_each(|warning| context.console.note(&printable(&warning.to_string())));
    let files: Vec<_> = read_files(&arguments.files)
        .map_err(invalid)?
        .into_iter()
        .map(|(name, text)| json!({ "name": &*name, "text": text }))
        .collect();
    let mut body = json!({
        "files": files,
        "variables": used.into_inner(),
        "complete": arguments.complete || arguments.files.iter().any(|path| path.is_dir()),
    });
    if !arguments.topic.is_empty() {
        body["topics"] = json!(arguments.topic);
    }
    if let Some(last) = arguments.last {
        body["last"] = json!(last);
    }
    let answer =
        context.api.call(Call::new(Method::POST, &["plan"]).body("application/json", body.to_string())).await?;
    if context.wants_json() {
        return context.console.line(&documents::one_line(&answer.body));
    }
    print(context, &documents::read(&answer.body)?)
}

fn invalid(diagnostics: Vec<Diagnostic>) -> Failure {
    Failure::Invalid {
        what: counted(diagnostics.len() as u64, "fault"),
        faults: diagnostics.iter().map(ToString::to_string).collect(),
    }
}

fn print(context: &mut Context<'_>, document: &Document) -> Result<(), Failure> {
    let console = &mut context.console;
    let mut told = false;
    for topic in document.topics.iter().filter(|topic| topic.action != "keep") {
        told = true;
        let reason = topic.reason.as_ref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
        console.line(&format!("{} topic {}{reason}", verb(&topic.action), printable(&topic.name)))?;
    }
    for subscription in document.subscriptions.iter().filter(|subscription| subscription.action != "keep") {
        told = true;
        let how = match (&subscription.from, subscription.changes.is_empty()) {
            (Some(from), _) => format!(", from {}", printable(from)),
            (None, false) => format!(": {}", printable(&subscription.changes.join(", "))),
            (None, true) => String::new(),
        };
        console.line(&format!("{} subscription {}{how}", verb(&subscription.action), printable(&subscription.name)))?;
    }
    if !told {
        console.line("nothing changes: the gateway has what the files declare")?;
    }
    for missing in &document.missing_topics {
        let by = printable(&missing.subscriptions.join(", ")).into_owned();
        console.line(&format!("there is no topic {} yet, which {by} reads", printable(&missing.topic)))?;
    }
    if document.looked.is_empty() {
        return console.line("no topic that is there is read, so no recorded event was looked at");
    }
    console.line("")?;
    let mut table = Table::new(&["TOPIC", ">LOOKED AT", ">DUPLICATES", ">RECORDED", "SINCE"]);
    for looked in &document.looked {
        table.push(vec![
            printable(&looked.topic).into_owned(),
            looked.events.to_string(),
            looked.duplicates.to_string(),
            looked.recorded.to_string(),
            printable(looked.since.as_deref().unwrap_or("-")).into_owned(),
        ]);
    }
    console.table(&table.lines())?;
    if document.looked.iter().any(|looked| looked.limited) {
        console.note("fewer events were looked at than asked for: together they are too large");
    }
    console.line("")?;
    let mut table = Table::new(&["DELIVERIES OF", ">NOW", ">THEN", ">ADDED", ">REMOVED", ">MOVED", "FOR EXAMPLE"]);
    for subscription in &document.subscriptions {
        table.push(vec![
            printable(&subscription.name).into_owned(),
            subscription.before.to_string(),
            subscription.after.to_string(),
            signed("+", subscription.added.count),
            signed("-", subscription.removed.count),
            signed("~", subscription.moved.count),
            examples(subscription),
        ]);
    }
    console.table(&table.lines())?;
    let late =
        |subscription: &Subscription| subscription.from.as_deref() == Some("latest") && subscription.added.count > 0;
    if let Some(subscription) = document.subscriptions.iter().find(|subscription| late(subscription)) {
        console.note(&format!(
            "a new subscription that begins at latest, such as {}, gets events like these, and not these themselves",
            printable(&subscription.name)
        ));
    }
    Ok(())
}

fn verb(action: &str) -> &str {
    match action {
        "create" => "+ creates",
        "change" => "~ changes",
        "end" => "- ends",
        "refuse" => "! cannot have",
        other => other,
    }
}

fn signed(sign: &str, count: u64) -> String {
    if count == 0 { "0".to_owned() } else { format!("{sign}{count}") }
}

/// One event of each kind of change.
fn examples(subscription: &Subscription) -> String {
    let kinds = [("+", &subscription.added), ("-", &subscription.removed), ("~", &subscription.moved)];
    let first = |(sign, sample): (&str, &Sample)| {
        let example = sample.examples.first()?;
        Some(format!("{sign}{} in {}", printable(&example.id), printable(&example.topic)))
    };
    kinds.into_iter().filter_map(first).collect::<Vec<_>>().join(", ")
}
