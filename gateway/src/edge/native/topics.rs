//! `GET /topics`, `GET PUT DELETE /topics/{topic}`.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_backbone::catalogue::{Origin, Topic, TopicSpec};
use tidegate_backbone::{Cursor, LogInfo};
use tidegate_routing::KeyFrom;

use super::body::read_json;
use super::publish::topic_name;
use super::{Api, Shared, time};
use crate::edge::problem::{Code, Problem};

#[derive(Serialize)]
struct Listed {
    topics: Vec<Document>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    name: String,
    partitions: Vec<Partition>,
    key_from: KeyFrom,
    dedupe: Dedupe,
    origin: Origin,
    created_at: String,
    position: String,
    subscriptions: Vec<String>,
}

#[derive(Serialize)]
struct Partition {
    partition: u32,
    begin: u64,
    end: u64,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dedupe {
    window: String,
}

/// What a topic is created with; the fields of the `Topic` resource's `spec` that there are now.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    partitions: Option<u32>,
    key_from: Option<KeyFrom>,
    dedupe: Option<Dedupe>,
}

async fn document(api: &Api, topic: &Topic) -> Result<Document, Problem> {
    let infos: Vec<LogInfo> = api.pubsub.partitions(topic).await?;
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
        origin: topic.spec.origin.clone(),
        created_at: time::text(topic.created_at),
        position: Cursor(infos.iter().map(|info| info.end).collect()).to_string(),
        subscriptions: subscriptions.collect(),
        partitions: (0..)
            .zip(infos)
            .map(|(partition, info)| Partition { partition, begin: info.begin.0, end: info.end.0, bytes: info.bytes })
            .collect(),
    })
}

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

pub(super) async fn show(State(api): State<Shared>, Path(name): Path<String>) -> Result<Response, Problem> {
    let topic = find(&api, name)?;
    Ok(Json(document(&api, &topic).await?).into_response())
}

pub(super) async fn create(
    State(api): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let name = topic_name(name)?;
    if name.is_reserved() {
        return Err(Problem::new(Code::Forbidden, format!("Names like {name} belong to the gateway; choose another.")));
    }
    if let Some(existing) = api.pubsub.topic(&name)
        && let Origin::File(file) = &existing.spec.origin
    {
        return Err(Problem::new(
            Code::OwnedByFile,
            format!("The topic {name} belongs to {file} and changes only there."),
        ));
    }
    let wanted: Wanted =
        read_json(request, Code::InvalidResource, r#"{"partitions": 4, "dedupe": {"window": "2m"}}"#).await?;
    let mut spec =
        TopicSpec::new(name, wanted.partitions.unwrap_or_else(|| api.pubsub.partitions_default()), Origin::Api);
    if let Some(key_from) = wanted.key_from {
        spec.key_from = key_from;
    }
    if let Some(dedupe) = wanted.dedupe {
        spec.dedupe_window = tidegate_resources::parse_duration(&dedupe.window)
            .map_err(|reason| Problem::new(Code::InvalidResource, format!("The topic's dedupe.window {reason}.")))?;
    }
    let (topic, created) = api.pubsub.create_topic(spec).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(document(&api, &topic).await?)).into_response())
}

pub(super) async fn delete(State(api): State<Shared>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    let topic = find(&api, name)?;
    if let Origin::File(file) = &topic.spec.origin {
        let detail = format!("The topic {} belongs to {file} and is deleted there.", topic.spec.name);
        return Err(Problem::new(Code::OwnedByFile, detail));
    }
    api.pubsub.delete_topic(&topic.spec.name).await?;
    Ok(StatusCode::NO_CONTENT)
}
