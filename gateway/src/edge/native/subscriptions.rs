//! `GET /subscriptions`, `GET /subscriptions/{id}`, pause and resume. The object is that of the CloudEvents Subscriptions
//! API; what is ours stands under `config` and `status`.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use tidegate_backbone::catalogue::{HandshakeSpec, Mode, OnExhausted, Order, Origin, Start, Subscription};
use tidegate_backbone::consume::{Probing, Standing, Whole};
use tidegate_routing::{Filter, TopicPattern};
use utoipa::ToSchema;

pub(super) mod write;

use super::body::read_json;
use super::keys::{self, Paused, Resume};
use super::openapi::{BODY, READ, WRITE, refusals, schemas};
use super::publish::topic_name;
use super::query::{Query, encode};
use super::{Api, Shared, precondition, time};
use crate::blocks::pubsub::PubSub;
use crate::edge::problem::{Code, Problem};

/// A subscription, as the CloudEvents Subscriptions API has it.
#[derive(Serialize, ToSchema)]
#[schema(as = Subscription)]
pub(super) struct Document<'a> {
    id: &'a str,
    /// `HTTP`.
    protocol: &'static str,
    /// Where the events go.
    sink: &'a str,
    #[serde(rename = "protocolsettings", skip_serializing_if = "Option::is_none")]
    protocol_settings: Option<ProtocolSettings<'a>>,
    /// All of them pass.
    #[schema(value_type = Vec<schemas::Filter>)]
    filters: &'a [Filter],
    config: Config<'a>,
    #[schema(schema_with = schemas::origin)]
    origin: &'a Origin,
    status: Status,
}

/// What is ours of a subscription.
#[derive(Serialize, ToSchema)]
#[schema(as = SubscriptionConfig)]
struct Config<'a> {
    /// Names, or patterns with `*` for one segment and `**` for the rest.
    #[schema(value_type = Vec<String>)]
    topics: &'a [TopicPattern],
    /// How requests are signed, where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing: Option<Signing<'a>>,
    /// How the sink is asked for its consent, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::handshake)]
    handshake: Option<&'a HandshakeSpec>,
    /// What is trusted in place of the machine's certificates, where something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls<'a>>,
    delivery: Delivery<'a>,
    /// Where replies of the sink are published.
    #[serde(rename = "replyTo", skip_serializing_if = "Option::is_none")]
    #[schema(examples("topic://order-replies"))]
    reply_to: Option<String>,
}

/// The schemes of the signatures; which secrets make them stands in the file alone.
#[derive(Serialize, ToSchema)]
struct Signing<'a> {
    /// `v1` or `v1a`, one for each key.
    signatures: &'a [String],
}

/// Whose certificates a sink may have.
#[derive(Serialize, ToSchema)]
struct Tls<'a> {
    /// The file with the certificates of the authorities.
    ca: &'a str,
}

/// What stands for the value of a header.
const REDACTED: &str = "[redacted]";

/// The settings of the protocol, in the form of the CloudEvents Subscriptions API.
#[derive(Serialize, ToSchema)]
struct ProtocolSettings<'a> {
    /// Headers that are added to each request; their values are not shown.
    #[schema(value_type = BTreeMap<String, String>)]
    headers: BTreeMap<&'a str, &'static str>,
}

/// How events are delivered.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Delivery<'a> {
    #[schema(schema_with = schemas::mode)]
    mode: Mode,
    #[schema(schema_with = schemas::order)]
    order: Order,
    /// Deliveries that are out at once.
    max_in_flight: u32,
    /// How long one attempt may take.
    #[schema(examples("15s"))]
    timeout: String,
    retry: Retry,
    #[schema(schema_with = schemas::on_exhausted)]
    on_exhausted: OnExhausted,
    /// Where it begins: `earliest`, `latest` or a time (RFC 3339); a topic that the gateway creates later is read from its
    /// start.
    #[schema(examples("latest"))]
    from: String,
    /// Where events go that cannot be delivered.
    dead_letter_topic: &'a str,
}

/// When to try again, and when to stop.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Retry {
    max_attempts: u32,
    max_age: String,
    initial: String,
    max: String,
}

/// How a subscription stands.
#[derive(Serialize, ToSchema)]
#[schema(as = SubscriptionStatus)]
#[serde(rename_all = "camelCase")]
struct Status {
    /// `active`, `paused`, `unreachable`, `breaker-open` (the sink fails whatever it is sent) or `ended`.
    standing: &'static str,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Since when the sink is only probed, where it is (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// When the next probe goes out, or when the one went out that is out now (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    next_probe: Option<String>,
    /// Events in memory that wait for their turn.
    queued: usize,
    /// Keys, and events without a key, that wait for their next attempt, and events that are to be delivered later.
    parked: usize,
    /// Dead letters that were sent again and are not settled.
    redriving: usize,
    /// Keys, and events without a key, that stand still until somebody resumes them.
    paused_keys: usize,
    /// The first of those; only where one subscription is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paused: Vec<Paused>,
    /// Deliveries that are out.
    in_flight: u32,
    /// Events of its topics that were not looked at yet.
    behind: u64,
    /// Events that it lost because their topics keep them no longer, since the gateway started.
    trimmed: u64,
    /// Slots whose owner did not answer in time, or that have none: their partitions are not in this answer. Missing where
    /// all answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_slots: Vec<u32>,
}

/// The word for how a subscription stands, and why where there is a reason.
pub(super) fn standing(standing: Option<&Standing>) -> (&'static str, Option<String>) {
    match standing {
        Some(Standing::Active) => ("active", None),
        Some(Standing::Paused(reason)) => ("paused", Some(reason.clone())),
        Some(Standing::Unreachable(_)) => ("unreachable", None),
        Some(Standing::BreakerOpen(_)) => ("breaker-open", None),
        None => ("ended", None),
    }
}

/// Where a subscription begins, as it is written.
pub(super) fn start(from: &Start) -> String {
    match from {
        Start::Earliest => "earliest".to_owned(),
        Start::Latest => "latest".to_owned(),
        Start::Time(milliseconds) => time::text(*milliseconds),
        Start::At(cursor) => cursor.to_string(),
    }
}

/// How a sink at fault is probed.
fn probing(standing: &Standing) -> Option<Probing> {
    match standing {
        Standing::Unreachable(probing) | Standing::BreakerOpen(probing) => Some(*probing),
        Standing::Active | Standing::Paused(_) => None,
    }
}

/// How subscriptions stand, by uid.
pub(super) type Statuses = Whole<HashMap<u64, tidegate_backbone::consume::Status>>;

async fn statuses(api: &Api, subscription: &Subscription) -> Statuses {
    api.pubsub.statuses(&[subscription.uid]).await
}

fn document<'a>(subscription: &'a Subscription, statuses: &Statuses) -> Document<'a> {
    let spec = &subscription.spec;
    let status = statuses.value.get(&subscription.uid).cloned();
    let (standing, reason) = standing(status.as_ref().map(|status| &status.standing));
    let probing = status.as_ref().and_then(|status| probing(&status.standing));
    let depth = |of: fn(&tidegate_backbone::consume::Status) -> usize| status.as_ref().map_or(0, of);
    Document {
        id: &spec.name,
        protocol: "HTTP",
        sink: &spec.sink,
        protocol_settings: (!spec.request.headers.is_empty()).then(|| ProtocolSettings {
            headers: spec.request.headers.iter().map(|name| (name.as_str(), REDACTED)).collect(),
        }),
        filters: &spec.filters,
        config: Config {
            topics: &spec.topics,
            signing: (!spec.request.signatures.is_empty()).then_some(Signing { signatures: &spec.request.signatures }),
            handshake: spec.request.handshake.as_ref(),
            tls: spec.request.ca.as_deref().map(|ca| Tls { ca }),
            delivery: Delivery {
                mode: spec.request.mode,
                order: spec.order,
                max_in_flight: spec.max_in_flight,
                timeout: tidegate_resources::format_duration(spec.timeout),
                retry: Retry {
                    max_attempts: spec.retry.max_attempts,
                    max_age: tidegate_resources::format_duration(spec.retry.max_age),
                    initial: tidegate_resources::format_duration(spec.retry.initial),
                    max: tidegate_resources::format_duration(spec.retry.max),
                },
                on_exhausted: spec.on_exhausted,
                from: start(&spec.from),
                dead_letter_topic: spec.dead_letter_topic.as_str(),
            },
            reply_to: spec.reply_to.as_ref().map(|topic| format!("topic://{topic}")),
        },
        origin: &spec.origin,
        status: Status {
            standing,
            reason,
            since: probing.map(|probing| time::text(probing.since)),
            next_probe: probing.map(|probing| time::text(probing.probe_at)),
            queued: depth(|status| status.queued),
            parked: depth(|status| status.parked),
            redriving: depth(|status| status.redriving),
            paused_keys: depth(|status| status.paused_keys),
            paused: Vec::new(),
            in_flight: status.as_ref().map_or(0, |status| status.in_flight),
            behind: status.as_ref().map_or(0, |status| status.behind),
            trimmed: status.as_ref().map_or(0, |status| status.trimmed),
            missing_slots: statuses.missing.clone(),
        },
    }
}

/// The subscription that a path names.
pub(super) fn find(api: &Api, name: &str) -> Result<std::sync::Arc<Subscription>, Problem> {
    api.pubsub
        .subscription(name)
        .ok_or_else(|| Problem::new(Code::SubscriptionNotFound, format!("There is no subscription {name}.")))
}

/// The most of one page.
const PAGE_MAX: usize = 1_000;

refusals! {
    ListRefusals: &[Code::InvalidArgument];
    ShowRefusals: READ, &[Code::SubscriptionNotFound];
    PauseRefusals: BODY, WRITE, &[Code::InvalidArgument, Code::SubscriptionNotFound, Code::NotFound];
    ResumeRefusals: BODY, WRITE, &[
        Code::InvalidArgument, Code::SubscriptionNotFound, Code::NotFound,
    ];
}

/// List the subscriptions
///
/// Every subscription with how it stands, by name.
#[utoipa::path(get, path = "/subscriptions", operation_id = "listSubscriptions", tag = "Subscriptions",
    params(
        ("topic" = Option<String>, Query, description = "Only those whose `config.topics` take in this topic."),
        ("after" = Option<String>, Query, description = "Only those behind this id."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "The most that are given; all of them \
            where nothing is said."),
    ),
    responses(
        (status = 200, description = "The subscriptions.", body = Vec<Document<'static>>,
            headers(("Link" = String, description = "The next page, with `rel=\"next\"`; absent from the last."))),
        ListRefusals
    ))]
pub(super) async fn list(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["topic", "after", "limit"])?;
    let topic = query.one("topic")?.map(|name| topic_name(name.to_owned())).transpose()?;
    let after = query.one("after")?;
    let limit = query.number("limit", usize::MAX, PAGE_MAX)?;
    let takes = |subscription: &Subscription| {
        let spec = &subscription.spec;
        after.is_none_or(|after| *spec.name > *after)
            && topic.as_ref().is_none_or(|topic| spec.topics.iter().any(|pattern| pattern.matches(topic)))
    };
    let mut subscriptions = api.pubsub.subscriptions();
    subscriptions.retain(|subscription| takes(subscription));
    let more = subscriptions.len() > limit;
    subscriptions.truncate(limit);
    let uids: Vec<u64> = subscriptions.iter().map(|subscription| subscription.uid).collect();
    let statuses = api.pubsub.statuses(&uids).await;
    let documents: Vec<_> = subscriptions.iter().map(|subscription| document(subscription, &statuses)).collect();
    let mut response = Json(documents).into_response();
    if let Some(last) = subscriptions.last().filter(|_| more) {
        let topic = topic.map_or_else(String::new, |topic| format!("&topic={}", encode(topic.as_str())));
        let link = format!("</subscriptions?after={}&limit={limit}{topic}>; rel=\"next\"", encode(&last.spec.name));
        let link =
            HeaderValue::from_str(&link).map_err(|_| Problem::new(Code::Internal, "A header could not be written."))?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// Show a subscription
///
/// What it asks for and how it stands.
#[utoipa::path(get, path = "/subscriptions/{id}", operation_id = "getSubscription", tag = "Subscriptions",
    params(("id" = String, Path, description = "The subscription's id.", example = "large-orders")),
    responses(
        (status = 200, description = "The subscription.", body = Document<'static>,
            headers(("ETag" = String, description = "For `If-Match`."))),
        ShowRefusals
    ))]
pub(super) async fn show(State(api): State<Shared>, Path(name): Path<String>) -> Result<Response, Problem> {
    let subscription = find(&api, &name)?;
    let etag = precondition::etag(&PubSub::tag(&subscription))?;
    Ok(([(header::ETAG, etag)], Json(whole(&api, &subscription).await?)).into_response())
}

/// A subscription with the keys that stand still.
async fn whole<'a>(api: &Api, subscription: &'a Subscription) -> Result<Document<'a>, Problem> {
    let mut document = document(subscription, &statuses(api, subscription).await);
    if document.status.paused_keys > 0 {
        document.status.paused = keys::of(api, subscription.uid).await?;
    }
    Ok(document)
}

/// Why a subscription is paused.
#[derive(Default, Deserialize, ToSchema)]
#[schema(examples(json!({"reason": "maintenance"})))]
#[serde(deny_unknown_fields)]
struct Pause {
    /// Shown with the subscription.
    reason: Option<String>,
}

/// Pause a subscription
///
/// Its events wait; those that are out end as they do.
#[utoipa::path(post, path = "/subscriptions/{id}/pause", operation_id = "pauseSubscription", tag = "Subscriptions",
    params(("id" = String, Path, description = "The subscription's id.", example = "large-orders")),
    request_body(content = Option<Pause>, description = "May be left out."),
    responses((status = 200, description = "It is paused.", body = Document<'static>), PauseRefusals))]
pub(super) async fn pause(
    State(api): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let wanted: Pause = read_json(request, Code::InvalidArgument, r#"{"reason": "maintenance"}"#).await?;
    let reason = wanted.reason.unwrap_or_else(|| "paused by request".to_owned());
    let subscription = api.pubsub.pause(&ByteString::from(name), Some(reason)).await?;
    let statuses = statuses(&api, &subscription).await;
    Ok(Json(document(&subscription, &statuses)).into_response())
}

/// Resume a subscription
///
/// Deliveries go on where they stood, and so do all keys that stand still; with `key` or `at` only that key.
#[utoipa::path(post, path = "/subscriptions/{id}/resume", operation_id = "resumeSubscription", tag = "Subscriptions",
    params(("id" = String, Path, description = "The subscription's id.", example = "large-orders")),
    request_body(content = Option<Resume>, description = "May be left out."),
    responses((status = 200, description = "It goes on.", body = Document<'static>), ResumeRefusals))]
pub(super) async fn resume(
    State(api): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let wanted: Resume = read_json(request, Code::InvalidArgument, Resume::EXAMPLE).await?;
    let name = ByteString::from(name);
    let of_subscription = wanted.is_of_subscription();
    let (which, head) = wanted.keys()?;
    let resumed = api.pubsub.resume_keys(&name, &which, head).await?.value;
    if of_subscription {
        api.pubsub.pause(&name, None).await?;
    } else if resumed == 0 {
        let detail = "No such key stands still; GET the subscription to see those that do.";
        return Err(Problem::new(Code::Conflict, detail));
    }
    let subscription = find(&api, &name)?;
    Ok(Json(whole(&api, &subscription).await?).into_response())
}
