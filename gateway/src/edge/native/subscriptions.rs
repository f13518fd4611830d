//! `GET /subscriptions`, `GET /subscriptions/{id}`, pause and resume. The object is that of the CloudEvents Subscriptions
//! API; what is ours stands under `config` and `status`.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tidegate_backbone::catalogue::{Order, Origin, Subscription};
use tidegate_backbone::consume::Standing;
use tidegate_routing::{Filter, TopicPattern};

use super::body::read_json;
use super::{Api, Shared};
use crate::edge::problem::{Code, Problem};

#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    protocol: &'static str,
    sink: &'a str,
    filters: &'a [Filter],
    config: Config<'a>,
    origin: &'a Origin,
    status: Status,
}

#[derive(Serialize)]
struct Config<'a> {
    topics: &'a [TopicPattern],
    delivery: Delivery<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Delivery<'a> {
    order: Order,
    max_in_flight: u32,
    timeout: String,
    retry: Retry,
    dead_letter_topic: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Retry {
    max_attempts: u32,
    max_age: String,
    initial: String,
    max: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    standing: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    queued: usize,
    parked: usize,
    in_flight: u32,
    behind: u64,
}

fn document<'a>(api: &Api, subscription: &'a Subscription) -> Document<'a> {
    let spec = &subscription.spec;
    let status = api.pubsub.status(subscription);
    let (standing, reason) = match status.as_ref().map(|status| &status.standing) {
        Some(Standing::Active) => ("active", None),
        Some(Standing::Paused(reason)) => ("paused", Some(reason.clone())),
        Some(Standing::Unreachable) => ("unreachable", None),
        None => ("ended", None),
    };
    let depth = |of: fn(&tidegate_backbone::consume::Status) -> usize| status.as_ref().map_or(0, of);
    Document {
        id: &spec.name,
        protocol: "HTTP",
        sink: &spec.sink,
        filters: &spec.filters,
        config: Config {
            topics: &spec.topics,
            delivery: Delivery {
                order: spec.order,
                max_in_flight: spec.max_in_flight,
                timeout: tidegate_resources::format_duration(spec.timeout),
                retry: Retry {
                    max_attempts: spec.retry.max_attempts,
                    max_age: tidegate_resources::format_duration(spec.retry.max_age),
                    initial: tidegate_resources::format_duration(spec.retry.initial),
                    max: tidegate_resources::format_duration(spec.retry.max),
                },
                dead_letter_topic: spec.dead_letter_topic.as_str(),
            },
        },
        origin: &spec.origin,
        status: Status {
            standing,
            reason,
            queued: depth(|status| status.queued),
            parked: depth(|status| status.parked),
            in_flight: status.as_ref().map_or(0, |status| status.in_flight),
            behind: status.as_ref().map_or(0, |status| status.behind),
        },
    }
}

/// The subscription that a path names.
pub(super) fn find(api: &Api, name: &str) -> Result<std::sync::Arc<Subscription>, Problem> {
    api.pubsub
        .subscription(name)
        .ok_or_else(|| Problem::new(Code::SubscriptionNotFound, format!("There is no subscription {name}.")))
}

pub(super) async fn list(State(api): State<Shared>) -> Response {
    let subscriptions = api.pubsub.subscriptions();
    let documents: Vec<_> = subscriptions.iter().map(|subscription| document(&api, subscription)).collect();
    Json(documents).into_response()
}

pub(super) async fn show(State(api): State<Shared>, Path(name): Path<String>) -> Result<Response, Problem> {
    let subscription = find(&api, &name)?;
    Ok(Json(document(&api, &subscription)).into_response())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    reason: Option<String>,
}

pub(super) async fn pause(
    State(api): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let wanted: Pause = read_json(request, Code::InvalidArgument, r#"{"reason": "maintenance"}"#).await?;
    let reason = wanted.reason.unwrap_or_else(|| "paused by request".to_owned());
    let subscription = api.pubsub.pause(&ByteString::from(name), Some(reason)).await?;
    Ok(Json(document(&api, &subscription)).into_response())
}

pub(super) async fn resume(State(api): State<Shared>, Path(name): Path<String>) -> Result<Response, Problem> {
    let subscription = api.pubsub.pause(&ByteString::from(name), None).await?;
    Ok(Json(document(&api, &subscription)).into_response())
}
