//! `POST /plan`: what resource files would do to subscriptions and to the deliveries of recorded events.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidegate_backbone::consume::{Example, Looked, Sample};
use tidegate_resources::{Diagnostic, parse_all};
use tidegate_routing::TopicName;
use tidegate_schemas::{Fault, limits};
use utoipa::ToSchema;

use super::body::read_json;
use super::openapi::{BODY, READ, refusals, schemas};
use super::subscriptions::start;
use super::{Shared, time};
use crate::blocks::pubsub::{Action, Plan, PlannedSubscription, PlannedTopic, Proposal};
use crate::edge::problem::{Code, Problem};

/// What is asked.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = PlanRequest)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    files: Vec<File>,
    /// The values of `${env:NAME}` in the files. The gateway's own variables are never filled in: whoever asks could
    /// read them by filters that compare.
    #[serde(default)]
    variables: BTreeMap<String, String>,
    /// Whether the files are the whole set, so that subscriptions of files that they do not declare end.
    #[serde(default)]
    complete: bool,
    /// Which topics are looked at; every one that a subscription reads where nothing is said.
    topics: Option<Vec<String>>,
    /// How many events of each; 1,000 where nothing is said.
    last: Option<usize>,
    /// How many events are named as examples of each kind of change; 5 where nothing is said.
    examples: Option<usize>,
}

/// A resource file.
#[derive(Deserialize, ToSchema)]
#[schema(as = PlanFile)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    text: String,
}

/// What the files would do.
#[derive(Serialize, ToSchema)]
#[schema(as = Plan)]
#[serde(rename_all = "camelCase")]
struct Document {
    subscriptions: Vec<SubscriptionDocument>,
    topics: Vec<TopicDocument>,
    /// Topics, and patterns that no topic matches, which the files' subscriptions read and nobody has created.
    missing_topics: Vec<MissingDocument>,
    /// The topics whose events were looked at.
    looked: Vec<LookedDocument>,
    #[schema(schema_with = schemas::diagnostics)]
    warnings: Vec<Diagnostic>,
}

/// What becomes of a subscription, and of the deliveries of the events that were looked at.
#[derive(Serialize, ToSchema)]
#[schema(as = PlanSubscription)]
#[serde(rename_all = "camelCase")]
struct SubscriptionDocument {
    name: String,
    /// `create`, `change`, `keep`, `end` or `refuse`.
    action: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<&'static str>,
    /// Where a new one begins: unless that is `earliest` or a time, it gets events like these but not these.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    before: u64,
    after: u64,
    added: SampleDocument,
    removed: SampleDocument,
    /// Delivered either way, to another sink.
    moved: SampleDocument,
}

/// A number of events, with the newest as examples.
#[derive(Serialize, ToSchema)]
#[schema(as = PlanSample)]
struct SampleDocument {
    count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    examples: Vec<ExampleDocument>,
}

/// An event that stands for others.
#[derive(Serialize, ToSchema)]
#[schema(as = PlanExample)]
struct ExampleDocument {
    id: String,
    source: String,
    topic: String,
    partition: u32,
    offset: u64,
}

/// What becomes of a declared topic.
#[derive(Serialize, ToSchema)]
#[schema(as = PlanTopic)]
struct TopicDocument {
    name: String,
    /// `create`, `change`, `keep`, `end` or `refuse`.
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A topic or a pattern, with the subscriptions that name it.
#[derive(Serialize, ToSchema)]
#[schema(as = PlanMissingTopic)]
struct MissingDocument {
    topic: String,
    subscriptions: Vec<String>,
}

/// What was looked at of a topic.
#[derive(Serialize, ToSchema)]
#[schema(as = PlanLooked)]
struct LookedDocument {
    topic: String,
    /// Events that were matched.
    events: u64,
    /// Events among the last that delivery drops as duplicates.
    duplicates: u64,
    /// Events that the topic holds.
    recorded: u64,
    /// When the oldest of those looked at was appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Fewer were looked at than asked for, because of their size.
    limited: bool,
}

const EXAMPLES: usize = 5;
const EXAMPLE: &str = r#"{"files": [{"name": "orders.yaml", "text": "apiVersion: tidegate.dev/v1…"}], "last": 1000}"#;

refusals! {
    Refusals: BODY, READ, &[Code::InvalidArgument, Code::InvalidResource, Code::TopicNotFound, Code::NotFound,
        Code::PositionLost];
}

/// Say what resource files would do
///
/// Which subscriptions they create, change and end, and which deliveries of recorded events that adds, removes and moves to
/// another sink. Events are matched as delivery matches them, without duplicates. Nothing is changed or delivered.
#[utoipa::path(post, path = "/plan", operation_id = "plan", tag = "Subscriptions", request_body = Asked,
    responses((status = 200, description = "What would change.", body = Document), Refusals))]
pub(super) async fn make(State(api): State<Shared>, request: Request) -> Result<Response, Problem> {
    let asked: Asked = read_json(request, Code::InvalidArgument, EXAMPLE).await?;
    let last = asked.last.unwrap_or(limits::PLAN_EVENTS);
    if !(1..=limits::PLAN_EVENTS_MAX).contains(&last) {
        let detail = format!("last is a number from 1 to {}, not {last}.", limits::PLAN_EVENTS_MAX);
        return Err(Problem::new(Code::InvalidArgument, detail));
    }
    let examples = asked.examples.unwrap_or(EXAMPLES);
    if examples > limits::PLAN_EXAMPLES_MAX {
        let detail = format!("examples is a number up to {}, not {examples}.", limits::PLAN_EXAMPLES_MAX);
        return Err(Problem::new(Code::InvalidArgument, detail));
    }
    let topics = asked.topics.as_deref().map(|names| topics_of(&api, names)).transpose()?;
    let files: Vec<(Arc<str>, &str)> =
        asked.files.iter().map(|file| (file.name.as_str().into(), file.text.as_str())).collect();
    let resources = parse_all(&files, &|name| asked.variables.get(name).cloned()).map_err(faults)?;
    let proposal = Proposal { resources: &resources, complete: asked.complete, topics, last, examples };
    let plan = api.pubsub.plan(&proposal).await?;
    Ok(Json(document(plan, resources.warnings.clone())).into_response())
}

fn topics_of(api: &Shared, names: &[String]) -> Result<Vec<TopicName>, Problem> {
    names
        .iter()
        .map(|text| {
            let name = TopicName::from_edge(text.clone()).map_err(|error| {
                Problem::new(Code::InvalidArgument, format!("The topic {text:?} has no valid name: {error}."))
            })?;
            match api.pubsub.topic(&name) {
                Some(_) => Ok(name),
                None => Err(Problem::new(Code::TopicNotFound, format!("There is no topic {name}."))),
            }
        })
        .collect()
}

/// Every fault of the files, each with its place.
fn faults(diagnostics: Vec<Diagnostic>) -> Problem {
    let fault = |diagnostic: Diagnostic| {
        let place = diagnostic.place.map(|place| format!(":{place}")).unwrap_or_default();
        let attribute = format!("{}{place}", diagnostic.file);
        Fault { attribute: attribute.into(), reason: format!("{} ({})", diagnostic.what, diagnostic.mend) }
    };
    Problem::new(Code::InvalidResource, "The files have faults; every one is listed with its place.")
        .with_faults(diagnostics.into_iter().map(fault))
}

fn document(plan: Plan, warnings: Vec<Diagnostic>) -> Document {
    Document {
        subscriptions: plan.subscriptions.into_iter().map(subscription).collect(),
        topics: plan.topics.into_iter().map(topic).collect(),
        missing_topics: plan
            .missing
            .into_iter()
            .map(|missing| MissingDocument {
                topic: missing.topic,
                subscriptions: missing.subscriptions.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        looked: plan.looked.into_iter().map(looked).collect(),
        warnings,
    }
}

fn action(action: &Action) -> (&'static str, Option<String>) {
    match action {
        Action::Create => ("create", None),
        Action::Change => ("change", None),
        Action::Keep => ("keep", None),
        Action::End => ("end", None),
        Action::Refuse(reason) => ("refuse", Some(reason.clone())),
    }
}

fn subscription(planned: PlannedSubscription) -> SubscriptionDocument {
    let from = planned.from.as_ref().map(start);
    SubscriptionDocument {
        name: planned.name.to_string(),
        action: action(&planned.action).0,
        changes: planned.changes,
        from,
        before: planned.tally.before,
        after: planned.tally.after,
        added: sample(planned.tally.added),
        removed: sample(planned.tally.removed),
        moved: sample(planned.tally.moved),
    }
}

fn sample(sample: Sample) -> SampleDocument {
    let example = |example: Example| ExampleDocument {
        id: example.id.to_string(),
        source: example.source.to_string(),
        topic: example.topic.to_string(),
        partition: example.partition,
        offset: example.position.0,
    };
    SampleDocument { count: sample.count, examples: sample.examples.into_iter().map(example).collect() }
}

fn topic(planned: PlannedTopic) -> TopicDocument {
    let (action, reason) = action(&planned.action);
    TopicDocument { name: planned.name.to_string(), action, reason }
}

fn looked(looked: Looked) -> LookedDocument {
    LookedDocument {
        topic: looked.topic.to_string(),
        events: looked.events,
        duplicates: looked.duplicates,
        recorded: looked.recorded,
        since: looked.since.map(time::text),
        limited: looked.limited,
    }
}
