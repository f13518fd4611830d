//! `GET /topics`, `GET PUT DELETE /topics/{topic}`.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_backbone::catalogue::{Foreign, Origin, Retention, Topic, TopicSpec};
use tidegate_backbone::{Cursor, LogInfo};
use tidegate_resources::Retention as Rules;
use tidegate_routing::KeyFrom;
use utoipa::ToSchema;

use super::body::read_json;
use super::openapi::{BODY, READ, WRITE, refusals, schemas};
use super::publish::topic_name;
use super::{Api, Shared, time};
use crate::blocks::pubsub::Outcome;
use crate::edge::problem::{Code, Problem};

/// The topics.
#[derive(Serialize, ToSchema)]
#[schema(as = Topics)]
struct Listed {
    /// By name.
    topics: Vec<Document>,
}

/// A topic.
#[derive(Serialize, ToSchema)]
#[schema(as = Topic)]
#[serde(rename_all = "camelCase")]
struct Document {
    name: String,
    /// What is known of each partition.
    partitions: Vec<Partition>,
    #[schema(schema_with = schemas::key_from)]
    key_from: KeyFrom,
    dedupe: Dedupe,
    retention: Kept,
    /// The topic of somebody else's that it is, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    attach: Option<Attach>,
    #[schema(schema_with = schemas::foreign)]
    foreign: Foreign,
    #[schema(schema_with = schemas::origin)]
    origin: Origin,
    /// RFC 3339.
    created_at: String,
    /// Behind the last event: whoever reads from here sees what is published afterwards.
    position: String,
    /// Which subscriptions read it, by name.
    subscriptions: Vec<String>,
    /// Why there are no partitions and no position here, where the broker beside the backbone that it is on cannot be used now,
    /// or has not got the topic any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<String>,
    /// What of it was lost, where this gateway reads a partition of it for subscriptions and delivers nothing from it until that
    /// is mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<String>,
}

/// A partition of a topic.
#[derive(Serialize, ToSchema)]
struct Partition {
    /// From 0.
    partition: u32,
    /// The first offset that can be read.
    begin: u64,
    /// The offset that the next event gets.
    end: u64,
    /// How many events it holds. On a broker that cannot count them it may be fewer than this.
    events: u64,
    /// What it takes on the disk.
    bytes: u64,
}

/// How duplicates are found.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Dedupe {
    /// How long ago an event of the same source and id makes one a duplicate; `0s` turns it off.
    #[schema(examples("2m"))]
    window: String,
}

/// A topic of somebody else's on the broker.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Attach {
    /// Its name there.
    #[schema(examples("legacy_orders"))]
    name: String,
    /// The broker beside the backbone that it is on, as the gateway's files name it; the backbone where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("eu"))]
    broker: Option<String>,
}

/// How long events are kept, as the `Topic` resource says it; what is left out has its default.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[schema(as = TopicRetention)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Older events go, or `unlimited`.
    #[schema(examples("7d"))]
    age: Option<String>,
    /// The oldest events of a partition go beyond it, or `unlimited`.
    #[schema(examples("10GiB"))]
    bytes: Option<String>,
}

impl From<Retention> for Kept {
    fn from(retention: Retention) -> Self {
        Self { age: Some(Rules::age_text(retention.age)), bytes: Some(Rules::bytes_text(retention.bytes)) }
    }
}

/// What a topic is created with; the fields of the `Topic` resource's `spec` that there are now.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = TopicSpec, examples(json!({"partitions": 4, "retention": {"age": "7d", "bytes": "10GiB"}, "dedupe": {"window": "2m"}})))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    /// Fixed for the topic's life.
    partitions: Option<u32>,
    #[schema(schema_with = schemas::key_from)]
    key_from: Option<KeyFrom>,
    dedupe: Option<Dedupe>,
    retention: Option<Kept>,
    /// Makes it a topic that is there on the broker, with the partitions that it has there. It never changes.
    attach: Option<Attach>,
    #[schema(schema_with = schemas::foreign)]
    foreign: Option<Foreign>,
}

refusals! {
    ListRefusals: READ, &[Code::NotFound];
    ShowRefusals: READ, &[Code::InvalidArgument, Code::TopicNotFound, Code::NotFound];
    CreateRefusals: BODY, WRITE, &[Code::InvalidArgument, Code::InvalidResource, Code::Forbidden, Code::OwnedByFile];
    DeleteRefusals: WRITE, &[Code::InvalidArgument, Code::TopicNotFound, Code::NotFound, Code::OwnedByFile];
}

async fn document(api: &Api, topic: &Topic) -> Result<Document, Problem> {
    let (partitions, unavailable) = match api.pubsub.partitions(topic).await {
        Ok(partitions) => (partitions, None),
        // All others are told all the same.
        Err(error) if topic.spec.broker.is_some() => (Vec::new(), Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let reads = |spec: &tidegate_backbone::catalogue::SubscriptionSpec| {
        spec.topics.iter().any(|pattern| pattern.matches(&topic.spec.name))
    };
    let subscriptions = api.pubsub.subscriptions();
    let subscriptions = subscriptions
        .iter()
        .filter(|subscription| reads(&subscription.spec))
        .map(|subscription| subscription.spec.name.to_string());
    Ok(Document {
        name: topic.spec.name.to_string(),
        key_from: topic.spec.key_from,
        dedupe: Dedupe { window: tidegate_resources::format_duration(topic.spec.dedupe_window) },
        retention: topic.spec.retention.into(),
        attach: topic.spec.attachment().map(|attachment| Attach {
            name: attachment.to.to_string(),
            broker: attachment.broker.map(|broker| broker.to_string()),
        }),
        foreign: topic.spec.foreign,
        origin: topic.spec.origin.clone(),
        created_at: time::text(topic.created_at),
        position: match &unavailable {
            None => Cursor(partitions.iter().map(|(info, _)| info.end).collect()).to_string(),
            Some(_) => String::new(),
        },
        subscriptions: subscriptions.collect(),
        partitions: (0..)
            .zip(partitions)
            .map(|(partition, (info, events))| {
                let LogInfo { begin, end, bytes, .. } = info;
                Partition { partition, begin: begin.0, end: end.0, events, bytes }
            })
            .collect(),
        unavailable,
        damaged: api.pubsub.damage(&topic.spec.name),
    })
}

/// List the topics
///
/// Every topic with its partitions and who reads it, by name.
#[utoipa::path(get, path = "/topics", operation_id = "listTopics", tag = "Topics",
    responses((status = 200, description = "The topics.", body = Listed), ListRefusals))]
pub(super) async fn list(State(api): State<Shared>) -> Result<Response, Problem> {
    let mut topics = Vec::new();
    for topic in api.pubsub.topics() {
        topics.push(document(&api, &topic).await?);
    }
    Ok(Json(Listed { topics }).into_response())
}

/// The topic that a path names.
pub(super) fn find(api: &Api, name: String) -> Result<std::sync::Arc<Topic>, Problem> {
    let name = topic_name(name)?;
    api.pubsub.topic(&name).ok_or_else(|| Problem::new(Code::TopicNotFound, format!("There is no topic {name}.")))
}

/// Show a topic
///
/// Its partitions with their ends, its settings, and the subscriptions that read it.
#[utoipa::path(get, path = "/topics/{topic}", operation_id = "getTopic", tag = "Topics",
    params(("topic" = String, Path, description = "The topic's name.", example = "orders")),
    responses((status = 200, description = "The topic.", body = Document), ShowRefusals))]
pub(super) async fn show(State(api): State<Shared>, Path(name): Path<String>) -> Result<Response, Problem> {
    let topic = find(&api, name)?;
    Ok(Json(document(&api, &topic).await?).into_response())
}

/// Create a topic, or bring one to these settings
///
/// What is not named has its default where the topic is new, and stays as it is where the topic is there. The number of
/// partitions and the key never change. A topic that a file owns changes only there.
#[utoipa::path(put, path = "/topics/{topic}", operation_id = "putTopic", tag = "Topics",
    params(("topic" = String, Path, description = "The topic's name.", example = "orders")),
    request_body(content = Option<Wanted>, description = "May be left out, and so may each of its fields."),
    responses(
        (status = 200, description = "It was there.", body = Document),
        (status = 201, description = "It was created.", body = Document),
        CreateRefusals
    ))]
pub(super) async fn create(
    State(api): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let name = topic_name(name)?;
    let wanted: Wanted =
        read_json(request, Code::InvalidResource, r#"{"partitions": 4, "retention": {"age": "7d"}}"#).await?;
    let mut spec = match api.pubsub.topic(&name) {
        // Whoever names one setting must not lose events by the default of another.
        Some(existing) => TopicSpec { origin: Origin::Api, ..existing.spec.clone() },
        None => TopicSpec::new(name, api.pubsub.partitions_default(), Origin::Api),
    };
    if let Some(partitions) = wanted.partitions {
        spec.partitions = partitions;
    }
    if let Some(key_from) = wanted.key_from {
        spec.key_from = key_from;
    }
    if let Some(dedupe) = wanted.dedupe {
        spec.dedupe_window = tidegate_resources::parse_duration(&dedupe.window)
            .map_err(|reason| Problem::new(Code::InvalidResource, format!("The topic's dedupe.window {reason}.")))?;
    }
    if let Some(foreign) = wanted.foreign {
        spec.foreign = foreign;
    }
    if let Some(attach) = wanted.attach {
        if wanted.partitions.is_some() || wanted.retention.is_some() {
            let detail = "The topic's partitions and retention are what it has on the broker, since it is attached; leave them out.";
            return Err(Problem::new(Code::InvalidResource, detail));
        }
        let name = tidegate_resources::parse_attached(&attach.name)
            .map_err(|reason| Problem::new(Code::InvalidResource, format!("The topic's attach.name {reason}.")))?;
        spec.attached = Some(ByteString::from(name));
        spec.broker = attach.broker.map(ByteString::from);
        spec.retention = Retention::default();
    }
    if let Some(kept) = wanted.retention {
        let refuse = |what: &str, reason: String| {
            Problem::new(Code::InvalidResource, format!("The topic's retention.{what} {reason}."))
        };
        if let Some(age) = kept.age {
            spec.retention.age = Rules::parse_age(&age).map_err(|reason| refuse("age", reason))?;
        }
        if let Some(bytes) = kept.bytes {
            spec.retention.bytes = Rules::parse_bytes(&bytes).map_err(|reason| refuse("bytes", reason))?;
        }
    }
    let (topic, outcome) = api.pubsub.put_topic(spec).await?;
    let status = if outcome == Outcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(document(&api, &topic).await?)).into_response())
}

/// Delete a topic with its events
///
/// A topic that a file owns is deleted only there.
#[utoipa::path(delete, path = "/topics/{topic}", operation_id = "deleteTopic", tag = "Topics",
    params(("topic" = String, Path, description = "The topic's name.", example = "orders")),
    responses((status = 204, description = "It is gone."), DeleteRefusals))]
pub(super) async fn delete(State(api): State<Shared>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    let topic = find(&api, name)?;
    api.pubsub.delete_topic(&topic.spec.name).await?;
    Ok(StatusCode::NO_CONTENT)
}
