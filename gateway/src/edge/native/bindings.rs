//! `GET /bindings`, `GET /bindings/{name}`, `POST /bindings/{name}/resume`: queues and exchanges of brokers, and how they stand.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use tidegate_resources::{Direction, Input, Output, Source};
use utoipa::ToSchema;

use super::openapi::{READ, refusals};
use super::{Shared, time};
use crate::blocks::bindings::{ResumeError, Shown};
use crate::edge::problem::{Code, Problem};

/// A queue or an exchange of a broker, and what it is bound to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Binding)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    /// Its name.
    name: String,
    /// The broker, by its name.
    broker: String,
    /// `input` or `output`.
    direction: &'static str,
    /// The queue, where it is bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
    /// The exchange, where it is bound to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange: Option<String>,
    /// What the routing key of an output is made of; where it has an exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("order.{type}"))]
    routing_key: Option<String>,
    /// By which routing keys an input is bound to its exchange.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bind: Vec<String>,
    /// The topic of an input.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// The file that declares it.
    file: String,
    status: Status,
}

/// How a binding stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BindingStatus)]
#[serde(rename_all = "camelCase")]
struct Status {
    /// `running`, `starting`, `waiting` (for what it needs, and tries again), `paused` (until somebody resumes it), or `unknown`.
    /// An output waits where its broker cannot be reached, or nothing can be sent there for now, as this gateway found; how its
    /// events fare say the subscriptions whose sink it is.
    state: &'static str,
    /// Why it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Since when it waits or is paused (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// The gateway that reads the queue of an input, by where it serves HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    /// Messages that became events since the input began there.
    #[serde(skip_serializing_if = "Option::is_none")]
    taken: Option<u64>,
    /// Messages that had been given before.
    #[serde(skip_serializing_if = "Option::is_none")]
    redelivered: Option<u64>,
    /// Messages that were given back as refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<u64>,
}

fn document(shown: Shown) -> Document {
    let Shown { binding, state, counts, gateway } = shown;
    let mut document = Document {
        name: binding.name.clone(),
        broker: binding.broker.clone(),
        direction: "output",
        queue: None,
        exchange: None,
        routing_key: None,
        bind: Vec::new(),
        topic: None,
        file: binding.origin.file.to_string(),
        status: Status {
            state: state.name(),
            reason: state.reason().map(str::to_owned),
            since: state.since().map(time::text),
            gateway: gateway.map(|gateway| gateway.to_string()),
            taken: counts.map(|counts| counts.taken),
            redelivered: counts.map(|counts| counts.redelivered),
            rejected: counts.map(|counts| counts.rejected),
        },
    };
    match &binding.direction {
        Direction::Output(Output::Queue(queue)) => document.queue = Some(queue.clone()),
        Direction::Output(Output::Exchange { exchange, routing_key }) => {
            document.exchange = Some(exchange.clone());
            document.routing_key = Some(routing_key.to_string());
        }
        Direction::Input(Input { from, topic, .. }) => {
            document.direction = "input";
            document.topic = Some(topic.to_string());
            match from {
                Source::Queue(queue) => document.queue = Some(queue.clone()),
                Source::Exchange { exchange, keys } => {
                    document.exchange = Some(exchange.clone());
                    document.bind.clone_from(keys);
                }
            }
        }
    }
    document
}

async fn find(api: &Shared, name: &str) -> Result<Document, Problem> {
    let shown = api.bindings.find(name).await;
    shown.map(document).ok_or_else(|| Problem::new(Code::BindingNotFound, format!("There is no binding {name}.")))
}

refusals! {
    ListRefusals: ;
    ShowRefusals: &[Code::BindingNotFound];
    ResumeRefusals: READ, &[Code::BindingNotFound];
}

/// List the bindings
///
/// Every binding that the files of this gateway declare, with how it stands, by name.
#[utoipa::path(get, path = "/bindings", operation_id = "listBindings", tag = "Bindings",
    responses((status = 200, description = "The bindings.", body = Vec<Document>), ListRefusals))]
pub(super) async fn list(State(api): State<Shared>) -> Json<Vec<Document>> {
    Json(api.bindings.list().await.into_iter().map(document).collect())
}

/// Show a binding
///
/// What it is bound to and how it stands.
#[utoipa::path(get, path = "/bindings/{name}", operation_id = "getBinding", tag = "Bindings",
    params(("name" = String, Path, description = "The binding's name.", example = "orders-in")),
    responses((status = 200, description = "The binding.", body = Document), ShowRefusals))]
pub(super) async fn show(State(api): State<Shared>, Path(name): Path<String>) -> Result<Json<Document>, Problem> {
    find(&api, &name).await.map(Json)
}

/// Resume a binding
///
/// An input that is paused reads its queue again. One that is not paused, and an output, go on as they do.
#[utoipa::path(post, path = "/bindings/{name}/resume", operation_id = "resumeBinding", tag = "Bindings",
    params(("name" = String, Path, description = "The binding's name.", example = "orders-in")),
    responses((status = 200, description = "It goes on.", body = Document), ResumeRefusals))]
pub(super) async fn resume(State(api): State<Shared>, Path(name): Path<String>) -> Result<Json<Document>, Problem> {
    api.bindings.resume(&name).await.map_err(|error| match error {
        ResumeError::NotFound(_) => Problem::new(Code::BindingNotFound, format!("There is no binding {name}.")),
        ResumeError::Away(..) => Problem::new(Code::Unavailable, format!("{error}.")),
    })?;
    find(&api, &name).await.map(Json)
}
