//! `subscriptions`: list, show, pause, resume.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::Call;
use super::failure::Failure;
use super::table::Table;
use super::text::{excerpt, printable};
use super::topics::origin;
use super::{Context, json as documents};
use crate::cli::arguments::Subscriptions;

/// What is shown of a sink or a reason in a list.
const CELL_CHARACTERS: usize = 80;

#[derive(Debug, Deserialize)]
struct Subscription {
    id: String,
    protocol: Option<String>,
    sink: String,
    #[serde(default)]
    filters: Vec<Value>,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    origin: Value,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    delivery: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    standing: String,
    reason: Option<String>,
    queued: Option<u64>,
    parked: Option<u64>,
    paused_keys: Option<u64>,
    in_flight: Option<u64>,
    behind: Option<u64>,
}

impl Status {
    fn standing(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} ({})", printable(&self.standing), excerpt(reason, CELL_CHARACTERS)),
            None => printable(&self.standing).into_owned(),
        }
    }
}

/// Carries out `subscriptions`.
pub(super) async fn run(context: &mut Context<'_>, command: &Subscriptions) -> Result<(), Failure> {
    match command {
        Subscriptions::List => list(context).await,
        Subscriptions::Show { name } => {
            let call = Call::new(Method::GET, &["subscriptions", name]);
            let Some(subscription) = one(context, call).await? else { return Ok(()) };
            print(context, &subscription)?;
            context.suggest(&format!("dead-letters list {}", printable(name)));
            Ok(())
        }
        Subscriptions::Create { file } => {
            let object = super::text_of(context, file).await?;
            if !object.trim_start().starts_with('{') {
                let name = file.display();
                return Err(Failure::Usage(format!(
                    "{name}: is no JSON object; apply resources in YAML with: tidegate apply {name}"
                )));
            }
            let call = Call::new(Method::POST, &["subscriptions"]).body("application/json", object);
            let Some(subscription) = one(context, call).await? else { return Ok(()) };
            let id = printable(&subscription.id).into_owned();
            context.console.line(&format!("created subscription {id}"))?;
            context.suggest(&format!("subscriptions show {id}"));
            Ok(())
        }
        Subscriptions::Delete { name } => {
            context.api.call(Call::new(Method::DELETE, &["subscriptions", name])).await?;
            if context.wants_json() {
                return Ok(());
            }
            context.console.line(&format!("deleted subscription {}", printable(name)))
        }
        Subscriptions::Pause { name, reason } => {
            let mut call = Call::new(Method::POST, &["subscriptions", name, "pause"]);
            if let Some(reason) = reason {
                call = call.body("application/json", json!({ "reason": reason }).to_string());
            }
            change(context, call, name, "paused").await?;
            context.suggest(&format!("subscriptions resume {}", printable(name)));
            Ok(())
        }
        Subscriptions::Resume { name, key, head } => {
            let mut call = Call::new(Method::POST, &["subscriptions", name, "resume"]);
            let wanted: serde_json::Map<String, Value> = [("key", key), ("head", head)]
                .into_iter()
                .filter_map(|(member, value)| Some((member.to_owned(), json!(value.as_ref()?))))
                .collect();
            if !wanted.is_empty() {
                call = call.body("application/json", Value::Object(wanted).to_string());
            }
            change(context, call, name, "resumed").await?;
            context.suggest(&format!("subscriptions show {}", printable(name)));
            Ok(())
        }
    }
}

async fn list(context: &mut Context<'_>) -> Result<(), Failure> {
    let answer = context.api.call(Call::new(Method::GET, &["subscriptions"])).await?;
    if context.wants_json() {
        let subscriptions: Vec<Box<serde_json::value::RawValue>> = documents::read(&answer.body)?;
        for subscription in subscriptions {
            context.console.line(&documents::one_line(subscription.get()))?;
        }
        return Ok(());
    }
    let subscriptions: Vec<Subscription> = documents::read(&answer.body)?;
    if subscriptions.is_empty() {
        context.console.note("there are no subscriptions");
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "STANDING", ">BEHIND", ">QUEUED", ">IN FLIGHT", ">PARKED", "TOPICS", "SINK"]);
    for Subscription { id, sink, config, status, .. } in &subscriptions {
        table.push(vec![
            printable(id).into_owned(),
            printable(&status.standing).into_owned(),
            count(status.behind),
            count(status.queued),
            count(status.in_flight),
            count(status.parked),
            excerpt(&config.topics.join(","), CELL_CHARACTERS),
            excerpt(sink, CELL_CHARACTERS),
        ]);
    }
    context.console.table(&table.lines())
}

/// The subscription that an answer holds, unless it has been printed as it came.
async fn one(context: &mut Context<'_>, call: Call) -> Result<Option<Subscription>, Failure> {
    let answer = context.api.call(call).await?;
    if context.wants_json() {
        context.console.line(&documents::one_line(&answer.body))?;
        return Ok(None);
    }
    documents::read(&answer.body).map(Some)
}

async fn change(context: &mut Context<'_>, call: Call, name: &str, done: &str) -> Result<(), Failure> {
    if let Some(subscription) = one(context, call).await? {
        let standing = subscription.status.standing();
        context.console.line(&format!("{done} subscription {}; it is now {standing}", printable(name)))?;
    }
    Ok(())
}

fn print(context: &mut Context<'_>, subscription: &Subscription) -> Result<(), Failure> {
    let Subscription { id, protocol, sink, filters, config, origin: from, status } = subscription;
    let filters: Vec<String> = filters.iter().map(Value::to_string).collect();
    let delivery = if config.delivery.is_null() { "-".to_owned() } else { config.delivery.to_string() };
    for (name, value) in [
        ("name", printable(id).into_owned()),
        ("standing", status.standing()),
        ("behind", count(status.behind)),
        ("queued", count(status.queued)),
        ("in flight", count(status.in_flight)),
        ("parked", count(status.parked)),
        ("paused keys", count(status.paused_keys)),
        ("topics", printable(&config.topics.join(", ")).into_owned()),
        ("filters", if filters.is_empty() { "-".to_owned() } else { printable(&filters.join(" ")).into_owned() }),
        ("sink", printable(sink).into_owned()),
        ("protocol", printable(protocol.as_deref().unwrap_or("-")).into_owned()),
        ("delivery", printable(&delivery).into_owned()),
        ("origin", origin(from)),
    ] {
        context.console.line(&format!("{name:<14} {value}"))?;
    }
    Ok(())
}

fn count(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}
