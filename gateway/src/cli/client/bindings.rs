//! `bindings`: list, show, resume.

use http::Method;
use serde::Deserialize;

use super::api::Call;
use super::failure::Failure;
use super::table::Table;
use super::text::{excerpt, printable};
use super::{Context, json as documents};
use crate::cli::arguments::Bindings;

/// What is shown of a reason in a list.
const CELL_CHARACTERS: usize = 80;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    name: String,
    broker: String,
    direction: String,
    queue: Option<String>,
    exchange: Option<String>,
    routing_key: Option<String>,
    #[serde(default)]
    bind: Vec<String>,
    topic: Option<String>,
    #[serde(default)]
    file: String,
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Status {
    state: String,
    reason: Option<String>,
    since: Option<String>,
    gateway: Option<String>,
    taken: Option<u64>,
    redelivered: Option<u64>,
    rejected: Option<u64>,
}

impl Binding {
    /// Where messages come from or go to.
    fn place(&self) -> String {
        match (&self.queue, &self.exchange) {
            (Some(queue), _) => format!("queue {}", printable(queue)),
            (None, Some(exchange)) => format!("exchange {}", printable(exchange)),
            (None, None) => "-".to_owned(),
        }
    }

    fn state(&self) -> String {
        match &self.status.reason {
            Some(reason) => format!("{} ({})", printable(&self.status.state), printable(reason)),
            None => printable(&self.status.state).into_owned(),
        }
    }
}

/// How a binding stands, for whoever looks at all of a gateway.
#[derive(Debug)]
pub(super) struct Standing {
    /// Its name.
    pub(super) name: String,
    /// Whether it does what it is for, as far as anybody has tried.
    pub(super) is_well: bool,
    /// Which way, between what, and how it stands.
    pub(super) told: String,
    /// Whether it stands still until somebody resumes it.
    pub(super) is_paused: bool,
}

/// How every binding stands, as the server tells it; none where it tells nothing of bindings.
pub(super) async fn standings(context: &Context<'_>) -> Vec<Standing> {
    let Ok(answer) = context.api.call(Call::new(Method::GET, &["bindings"])).await else { return Vec::new() };
    let bindings: Vec<Binding> = documents::read(&answer.body).unwrap_or_default();
    let standing = |binding: Binding| {
        let (state, place) = (binding.state(), binding.place());
        let told = format!("{}: {} of {place} on {}, {state}", binding.name, binding.direction, binding.broker);
        let is_well = matches!(&*binding.status.state, "running" | "starting");
        Standing { told, is_well, is_paused: binding.status.state == "paused", name: binding.name }
    };
    bindings.into_iter().map(standing).collect()
}

/// Carries out `bindings`.
pub(super) async fn run(context: &mut Context<'_>, command: &Bindings) -> Result<(), Failure> {
    match command {
        Bindings::List => list(context).await,
        Bindings::Show { name } => {
            let call = Call::new(Method::GET, &["bindings", name]);
            let Some(binding) = one(context, call).await? else { return Ok(()) };
            print(context, &binding)
        }
        Bindings::Resume { name } => {
            let call = Call::new(Method::POST, &["bindings", name, "resume"]);
            let Some(binding) = one(context, call).await? else { return Ok(()) };
            context.console.line(&format!("resumed binding {}; it is now {}", printable(name), binding.state()))?;
            context.suggest(&format!("bindings show {}", printable(name)));
            Ok(())
        }
    }
}

async fn list(context: &mut Context<'_>) -> Result<(), Failure> {
    let answer = context.api.call(Call::new(Method::GET, &["bindings"])).await?;
    if context.wants_json() {
        let bindings: Vec<Box<serde_json::value::RawValue>> = documents::read(&answer.body)?;
        for binding in bindings {
            context.console.line(&documents::one_line(binding.get()))?;
        }
        return Ok(());
    }
    let bindings: Vec<Binding> = documents::read(&answer.body)?;
    if bindings.is_empty() {
        context.console.note("there are no bindings");
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "DIRECTION", "STATE", ">TAKEN", "BROKER", "PLACE", "TOPIC", "REASON"]);
    for binding in &bindings {
        table.push(vec![
            printable(&binding.name).into_owned(),
            printable(&binding.direction).into_owned(),
            printable(&binding.status.state).into_owned(),
            count(binding.status.taken),
            printable(&binding.broker).into_owned(),
            binding.place(),
            text(binding.topic.as_deref()),
            excerpt(binding.status.reason.as_deref().unwrap_or("-"), CELL_CHARACTERS),
        ]);
    }
    context.console.table(&table.lines())
}

/// The binding that an answer holds, unless it has been printed as it came.
async fn one(context: &mut Context<'_>, call: Call) -> Result<Option<Binding>, Failure> {
    let answer = context.api.call(call).await?;
    if context.wants_json() {
        context.console.line(&documents::one_line(&answer.body))?;
        return Ok(None);
    }
    documents::read(&answer.body).map(Some)
}

fn print(context: &mut Context<'_>, binding: &Binding) -> Result<(), Failure> {
    let bound = if binding.bind.is_empty() { text(binding.routing_key.as_deref()) } else { binding.bind.join(", ") };
    for (name, value) in [
        ("name", printable(&binding.name).into_owned()),
        ("direction", printable(&binding.direction).into_owned()),
        ("state", binding.state()),
        ("since", text(binding.status.since.as_deref())),
        ("gateway", text(binding.status.gateway.as_deref())),
        ("taken", count(binding.status.taken)),
        ("redelivered", count(binding.status.redelivered)),
        ("rejected", count(binding.status.rejected)),
        ("broker", printable(&binding.broker).into_owned()),
        ("place", binding.place()),
        ("routing key", printable(&bound).into_owned()),
        ("topic", text(binding.topic.as_deref())),
        ("file", printable(&binding.file).into_owned()),
    ] {
        context.console.line(&format!("{name:<14} {value}"))?;
    }
    Ok(())
}

fn text(text: Option<&str>) -> String {
    printable(text.unwrap_or("-")).into_owned()
}

fn count(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}
