//! `topics`: list, show, create, delete.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::Call;
use super::failure::Failure;
use super::table::Table;
use super::text::{bytes, printable};
use super::{Context, json as documents};
use crate::cli::arguments::{TopicSettings, Topics};

const JSON: &str = "application/json";

#[derive(Debug, Deserialize)]
struct List<T> {
    topics: Vec<T>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Topic {
    name: String,
    #[serde(default)]
    partitions: Vec<Partition>,
    key_from: Option<String>,
    dedupe: Option<Dedupe>,
    retention: Option<Retention>,
    attach: Option<Attach>,
    foreign: Option<String>,
    #[serde(default)]
    origin: Value,
    created_at: Option<String>,
    position: Option<String>,
    #[serde(default)]
    subscriptions: Vec<String>,
    /// Why its partitions are not told.
    unavailable: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Partition {
    partition: u32,
    begin: u64,
    end: u64,
    /// None of a gateway that does not count them.
    events: Option<u64>,
    bytes: Option<u64>,
}

impl Partition {
    fn events(&self) -> u64 {
        self.events.unwrap_or_else(|| self.end.saturating_sub(self.begin))
    }
}

#[derive(Debug, Deserialize)]
struct Attach {
    name: String,
    #[serde(default)]
    broker: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Dedupe {
    window: String,
}

#[derive(Debug, Deserialize)]
struct Retention {
    age: Option<String>,
    bytes: Option<String>,
}

impl Topic {
    fn events(&self) -> u64 {
        self.partitions.iter().map(Partition::events).sum()
    }

    /// The bytes that it takes, where the broker tells them of every partition.
    fn bytes(&self) -> Option<u64> {
        self.partitions.iter().map(|partition| partition.bytes).sum()
    }
}

/// Carries out `topics`.
pub(super) async fn run(context: &mut Context<'_>, command: &Topics) -> Result<(), Failure> {
    match command {
        Topics::List => list(context).await,
        Topics::Show { name } => show(context, name).await,
        Topics::Create { name, settings } => create(context, name, settings).await,
        Topics::Delete { name } => {
            context.api.call(Call::new(Method::DELETE, &["topics", name])).await?;
            if context.wants_json() {
                return Ok(());
            }
            context.console.line(&format!("deleted topic {}", printable(name)))
        }
    }
}

async fn list(context: &mut Context<'_>) -> Result<(), Failure> {
    let answer = context.api.call(Call::new(Method::GET, &["topics"])).await?;
    if context.wants_json() {
        let list: List<Box<serde_json::value::RawValue>> = documents::read(&answer.body)?;
        for topic in list.topics {
            context.console.line(&documents::one_line(topic.get()))?;
        }
        return Ok(());
    }
    let list: List<Topic> = documents::read(&answer.body)?;
    if list.topics.is_empty() {
        context.console.note("there are no topics");
        context.suggest("publish orders --data '{\"hello\": \"world\"}'");
        return Ok(());
    }
    let mut table = Table::new(&["NAME", ">PARTITIONS", ">EVENTS", ">SIZE", ">SUBSCRIPTIONS", "ORIGIN"]);
    for topic in &list.topics {
        table.push(vec![
            printable(&topic.name).into_owned(),
            topic.partitions.len().to_string(),
            topic.events().to_string(),
            size(topic.bytes()),
            topic.subscriptions.len().to_string(),
            origin(&topic.origin),
        ]);
    }
    context.console.table(&table.lines())
}

async fn show(context: &mut Context<'_>, name: &str) -> Result<(), Failure> {
    let answer = context.api.call(Call::new(Method::GET, &["topics", name])).await?;
    if context.wants_json() {
        return context.console.line(&documents::one_line(&answer.body));
    }
    let topic: Topic = documents::read(&answer.body)?;
    print(context, &topic)?;
    context.suggest(&format!("tail {} --from earliest", printable(name)));
    Ok(())
}

/// The document that asks for these settings, without those that are not named.
fn wanted(settings: &TopicSettings) -> Value {
    let mut wanted = serde_json::Map::new();
    if let Some(partitions) = settings.partitions {
        wanted.insert("partitions".to_owned(), partitions.into());
    }
    if let Some(attribute) = &settings.key_from {
        wanted.insert("keyFrom".to_owned(), attribute.as_str().into());
    }
    if let Some(window) = &settings.dedupe_window {
        wanted.insert("dedupe".to_owned(), json!({ "window": window }));
    }
    if let Some(name) = &settings.attach {
        let attach = match &settings.broker {
            Some(broker) => json!({ "name": name, "broker": broker }),
            None => json!({ "name": name }),
        };
        wanted.insert("attach".to_owned(), attach);
    }
    if let Some(foreign) = &settings.foreign {
        wanted.insert("foreign".to_owned(), foreign.as_str().into());
    }
    let kept = [("age", &settings.retention_age), ("bytes", &settings.retention_bytes)];
    let kept: serde_json::Map<String, Value> =
        kept.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_deref()?.into()))).collect();
    if !kept.is_empty() {
        wanted.insert("retention".to_owned(), kept.into());
    }
    wanted.into()
}

async fn create(context: &mut Context<'_>, name: &str, settings: &TopicSettings) -> Result<(), Failure> {
    let body = wanted(settings);
    let call = Call::new(Method::PUT, &["topics", name]).body(JSON, body.to_string());
    let answer = context.api.call(call).await?;
    if context.wants_json() {
        context.console.line(&documents::one_line(&answer.body))?;
    } else {
        let topic: Topic = documents::read(&answer.body)?;
        let done = if answer.status == StatusCode::CREATED { "created" } else { "already there:" };
        let partitions = super::text::counted(topic.partitions.len() as u64, "partition");
        context.console.line(&format!("{done} topic {} with {partitions}", printable(&topic.name)))?;
    }
    context.suggest(&format!("publish {} --data '{{\"hello\": \"world\"}}'", printable(name)));
    Ok(())
}

fn print(context: &mut Context<'_>, topic: &Topic) -> Result<(), Failure> {
    let or_dash =
        |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), |text| printable(text).into_owned());
    let window = topic.dedupe.as_ref().map(|dedupe| dedupe.window.clone());
    let kept = |part: fn(&Retention) -> &Option<String>| topic.retention.as_ref().and_then(|kept| part(kept).clone());
    let (age, bytes) = (kept(|kept| &kept.age), kept(|kept| &kept.bytes));
    let subscriptions = if topic.subscriptions.is_empty() { "-".to_owned() } else { topic.subscriptions.join(", ") };
    if let Some(attach) = &topic.attach {
        let on = attach.broker.as_deref().map_or_else(String::new, |broker| format!(" on {}", printable(broker)));
        context.console.line(&format!("{:<14} {}{on}", "attached to", printable(&attach.name)))?;
    }
    if let Some(reason) = &topic.unavailable {
        context.console.line(&format!("{:<14} {}", "unavailable", printable(reason)))?;
    }
    if topic.foreign.as_deref() == Some("dead-letter") {
        context.console.line(&format!("{:<14} dead letters", "no events are"))?;
    }
    for (name, value) in [
        ("name", printable(&topic.name).into_owned()),
        ("origin", origin(&topic.origin)),
        ("created", or_dash(&topic.created_at)),
        ("key from", or_dash(&topic.key_from)),
        ("dedupe window", or_dash(&window)),
        ("kept for", or_dash(&age)),
        ("kept bytes", or_dash(&bytes)),
        ("subscriptions", printable(&subscriptions).into_owned()),
        ("position", or_dash(&topic.position)),
    ] {
        context.console.line(&format!("{name:<14} {value}"))?;
    }
    context.console.line("")?;
    let mut table = Table::new(&[">PARTITION", ">BEGIN", ">END", ">EVENTS", ">SIZE"]);
    for partition in &topic.partitions {
        table.push(vec![
            partition.partition.to_string(),
            partition.begin.to_string(),
            partition.end.to_string(),
            partition.events().to_string(),
            size(partition.bytes),
        ]);
    }
    context.console.table(&table.lines())
}

fn size(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), bytes)
}

/// Who made it: a word, or the file that owns it.
pub(super) fn origin(origin: &Value) -> String {
    let text = origin.as_str().or_else(|| origin.get("file").and_then(Value::as_str));
    printable(text.unwrap_or("-")).into_owned()
}
