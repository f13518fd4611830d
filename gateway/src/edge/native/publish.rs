//! `POST /topics/{topic}` and `POST /events`: one event, a batch, or anything that is wrapped into an event.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use tidegate_backbone::catalogue::Topic;
use tidegate_backbone::publish::Receipt;
use tidegate_backbone::{Applied, Error};
use tidegate_routing::TopicName;
use tidegate_schemas::http::{Message, ReadError};
use tidegate_schemas::limits::Limit;
use tidegate_schemas::{Event, Fault, Faults, MediaType, Value, http as binding, json, limits};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::change::sentence;
use super::openapi::schemas::CloudEvent;
use super::openapi::{BODY, WRITE, refusals};
use super::query::Query;
use super::{Api, Shared, schedule};
use crate::blocks::pubsub::RequestError;
use crate::edge::listener::read_body;
use crate::edge::problem::{Code, Problem};

/// Where `POST /events` goes.
pub(super) const DEFAULT_TOPIC: &str = "events";
/// The parameters from which an event is made of what is none, and those that say what becomes of it.
const PARAMETERS: &[&str] = &["type", "source", "subject", "partitionkey", "deliver-at", "delay", "reply"];
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const TYPE_DEFAULT: &str = "tidegate.wrapped";
const SOURCE_DEFAULT: &str = "/tidegate";

/// Where an event is stored, and how durably.
#[derive(Serialize, ToSchema)]
#[schema(as = Receipt, examples(json!({
    "id": "A-1", "source": "/shop", "topic": "orders", "partition": 0, "offset": 17, "durability": "fsync"
})))]
pub(super) struct Document<'a> {
    /// The event's id.
    id: &'a str,
    /// The event's source.
    source: &'a str,
    topic: &'a str,
    partition: u32,
    /// Where the broker tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// `memory`, `os`, `replicated`, `fsync` or `fsync-quorum`.
    durability: &'static str,
}

/// What a publish is answered with.
#[derive(Serialize, ToSchema)]
#[schema(as = Receipts)]
#[serde(untagged)]
enum Published<'a> {
    /// Of one event.
    One(Document<'a>),
    /// Of a batch, in its order.
    Batch(Vec<Document<'a>>),
}

refusals! {
    Refusals: BODY, WRITE, &[
        Code::InvalidEvent, Code::InvalidArgument, Code::Forbidden, Code::TopicNotFound, Code::NotFound,
        Code::EventTooLarge, Code::UnsupportedMediaType, Code::NoResponder, Code::DeadlineExceeded,
    ];
}

impl<'a> From<&'a Receipt> for Document<'a> {
    fn from(receipt: &'a Receipt) -> Self {
        Self {
            id: &receipt.id,
            source: &receipt.source,
            topic: &receipt.topic,
            partition: receipt.partition,
            offset: receipt.position.map(|position| position.0),
            durability: receipt.durability.name(),
        }
    }
}

/// Publish to the topic `events`
///
/// As `POST /topics/{topic}`.
#[utoipa::path(post, path = "/events", operation_id = "publishToDefault", tag = "Events",
    params(
        ("type" = Option<String>, Query, description = "Wrapping: the event's type."),
        ("source" = Option<String>, Query, description = "Wrapping: the event's source."),
        ("subject" = Option<String>, Query, description = "Wrapping: the event's subject."),
        ("partitionkey" = Option<String>, Query, description = "Wrapping: the event's key."),
        ("Idempotency-Key" = Option<String>, Header, description = "Wrapping: the event's id."),
        ("deliver-at" = Option<String>, Query, description = "Not to be delivered before (RFC 3339)."),
        ("delay" = Option<String>, Query, description = "Not to be delivered before this time has passed, as `5m`."),
        ("reply" = Option<String>, Query, description = "Waits so long, as `5s`, for the first reply, and answers with it."),
    ),
    request_body(description = "As of `POST /topics/{topic}`.", content(
        (CloudEvent = "application/cloudevents+json"),
        (Vec<CloudEvent> = "application/cloudevents-batch+json"),
        ("application/cloudevents+protobuf"),
        ("application/cloudevents-batch+protobuf"),
        (CloudEvent = "application/x-ndjson"),
        ("*/*"),
    )),
    responses(
        (status = 200, description = "The reply, in binary mode, where one was asked for.", content((CloudEvent = "*/*"))),
        (status = 202, description = "Stored.", body = Published<'static>),
        Refusals,
    ))]
pub(super) async fn to_default(State(api): State<Shared>, request: Request) -> Result<Response, Problem> {
    publish(&api, DEFAULT_TOPIC.to_owned(), request).await
}

/// Publish to a topic
///
/// One event in binary mode (`ce-` headers) or structured mode, or a batch: as JSON, as protobuf, or as lines of which each
/// is an event. A body that is no CloudEvent is wrapped into
/// one from the query and the headers. The answer comes when the events are stored as durably as the receipt says. A batch
/// is checked whole, then stored event by event: where only some are stored, the problem carries `receipts`.
#[utoipa::path(post, path = "/topics/{topic}", operation_id = "publish", tag = "Events",
    params(
        ("topic" = String, Path, description = "The topic's name.", example = "orders"),
        ("type" = Option<String>, Query, description = "Wrapping: the event's type; `tidegate.wrapped` where none is given."),
        ("source" = Option<String>, Query, description = "Wrapping: the event's source; `/tidegate` where none is given."),
        ("subject" = Option<String>, Query, description = "Wrapping: the event's subject."),
        ("partitionkey" = Option<String>, Query, description = "Wrapping: the event's key."),
        ("Idempotency-Key" = Option<String>, Header, description = "Wrapping: the event's id, so that it can be sent again."),
        ("deliver-at" = Option<String>, Query, description = "Not to be delivered before (RFC 3339); also `tidegate-deliver-at` in the header. Sets `deliverat`."),
        ("delay" = Option<String>, Query, description = "Not to be delivered before this time has passed, as `5m`; also `tidegate-delay` in the header."),
        ("reply" = Option<String>, Query, description = "Waits so long, as `5s`, for the first reply of a subscription's sink, and answers with it."),
    ),
    request_body(description = "The event, the batch, or data to be wrapped.", content(
        (CloudEvent = "application/cloudevents+json"),
        (Vec<CloudEvent> = "application/cloudevents-batch+json"),
        ("application/cloudevents+protobuf"),
        ("application/cloudevents-batch+protobuf"),
        (CloudEvent = "application/x-ndjson"),
        ("*/*"),
    )),
    responses(
        (status = 200, description = "The reply, in binary mode, where one was asked for.", content((CloudEvent = "*/*"))),
        (status = 202, description = "Stored.", body = Published<'static>),
        Refusals,
    ))]
pub(super) async fn to_topic(
    State(api): State<Shared>,
    Path(topic): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    publish(&api, topic, request).await
}

async fn publish(api: &Shared, topic: String, request: Request) -> Result<Response, Problem> {
    let began = Instant::now();
    let answer = accept(api, topic, request).await;
    count(api, &answer, began);
    answer
}

/// Counts what became of a publish that began then.
pub(super) fn count<T>(api: &Api, answer: &Result<T, Problem>, began: Instant) {
    let outcome = match answer {
        Ok(_) => "accepted",
        Err(problem) if problem.code() == Code::OutcomeUnknown => "unknown",
        Err(problem) if problem.code().status().is_client_error() => "refused",
        Err(_) => "failed",
    };
    api.metrics.published(outcome, began.elapsed());
}

async fn accept(api: &Shared, topic: String, request: Request) -> Result<Response, Problem> {
    let name = topic_name(topic)?;
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query(), PARAMETERS)?;
    api.pubsub.check_room()?;
    // Known before the body is read, so that a client that asks for leave to send it (100-continue) is told at once.
    let topic = api.pubsub.topic_for_publish(&name).await?;
    let body: Bytes = read_body(Body::new(body)).await?;
    let wanted = Wanted { at: schedule::wanted(api, &parts.headers, &query)?, reply: reply_timeout(&query)? };
    match binding::read(&parts.headers, body.clone(), &api.limits).map_err(|error| problem(&error))? {
        Message::Event(event) => one(api, &topic, event, &wanted).await,
        Message::Batch(events) => many(api, &topic, events, &wanted).await,
        Message::None if is_lines(&parts.headers) => {
            let events = json::read_lines(body, &api.limits).map_err(|error| problem(&error.into()))?;
            many(api, &topic, events, &wanted).await
        }
        Message::None => one(api, &topic, wrap(api, &parts.headers, &query, body)?, &wanted).await,
    }
}

/// What a request says of its events beside themselves.
struct Wanted {
    /// When they are to be delivered, in milliseconds since 1970.
    at: Option<u64>,
    /// How long a reply is waited for.
    reply: Option<Duration>,
}

fn reply_timeout(query: &Query<'_>) -> Result<Option<Duration>, Problem> {
    let Some(text) = query.one("reply")? else { return Ok(None) };
    let refuse = |reason: String| Problem::new(Code::InvalidArgument, sentence(&format!("reply={text} {reason}")));
    let timeout = tidegate_resources::parse_duration(text).map_err(refuse)?;
    if timeout.is_zero() || timeout > limits::REPLY_TIMEOUT_MAX {
        let most = tidegate_resources::format_duration(limits::REPLY_TIMEOUT_MAX);
        return Err(refuse(format!("is no time to wait for a reply; write at most {most}, for instance 5s")));
    }
    Ok(Some(timeout))
}

/// Publishes and waits for the first reply.
async fn ask(api: &Api, topic: &Topic, event: Event, timeout: Duration) -> Result<Response, Problem> {
    let detail = |error: &RequestError| sentence(&error.to_string());
    match api.pubsub.request(topic, event, timeout).await {
        Ok(reply) => {
            let written = binding::write(&reply);
            Ok((StatusCode::OK, written.headers, written.body).into_response())
        }
        Err(error @ RequestError::NobodySubscribed { .. }) => {
            Err(Problem::new(Code::NoResponder, detail(&error)).with_retry_after(Duration::from_secs(1)))
        }
        Err(error @ RequestError::TooMany) => {
            Err(Problem::new(Code::Overloaded, detail(&error)).with_retry_after(Duration::from_secs(1)))
        }
        Err(RequestError::Publish(error)) => Err(error.into()),
        Err(error @ RequestError::NoReply { .. }) => {
            let detail = detail(&error);
            let RequestError::NoReply { receipt, .. } = error else { return Err(Problem::new(Code::Internal, detail)) };
            let receipt = serde_json::to_value(Document::from(&*receipt)).unwrap_or_default();
            Err(Problem::new(Code::DeadlineExceeded, detail).with_receipts(vec![receipt]))
        }
    }
}

/// Whether the body is newline-delimited JSON, under any of the names that it goes by.
fn is_lines(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.and_then(MediaType::parse).is_some_and(|media_type| {
        ["x-ndjson", "ndjson", "jsonl", "x-jsonlines"].iter().any(|subtype| media_type.is("application", subtype))
    })
}

/// Stores one event. It is queued when this is called, so that events of one caller keep their order.
pub(super) fn store(
    api: &Shared,
    topic: &Topic,
    event: Event,
) -> impl Future<Output = Result<Receipt, Problem>> + Send + 'static + use<> {
    let began = Instant::now();
    let stored = api.pubsub.publish(topic, event);
    let api = Shared::clone(api);
    async move {
        let receipt = stored.await?;
        api.metrics.appended(began.elapsed());
        Ok(receipt)
    }
}

async fn one(api: &Shared, topic: &Topic, event: Event, wanted: &Wanted) -> Result<Response, Problem> {
    let event = schedule::apply(api, event, wanted.at).map_err(|faults| Problem::from(Faults(faults)))?;
    if let Some(timeout) = wanted.reply {
        return ask(api, topic, event, timeout).await;
    }
    let receipt = store(api, topic, event).await?;
    let document = serde_json::to_vec(&Published::One(Document::from(&receipt))).unwrap_or_default();
    Ok((StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], document).into_response())
}

async fn many(api: &Api, topic: &Topic, events: Vec<Event>, wanted: &Wanted) -> Result<Response, Problem> {
    if wanted.reply.is_some() {
        return Err(Problem::new(Code::InvalidArgument, "A batch has no reply; publish its events one by one."));
    }
    let (mut checked, mut faults) = (Vec::with_capacity(events.len()), Vec::new());
    for (index, event) in events.into_iter().enumerate() {
        match schedule::apply(api, event, wanted.at) {
            Ok(event) => checked.push(event),
            Err(found) => faults.extend(found.into_iter().map(|fault| in_batch(index, fault))),
        }
    }
    if !faults.is_empty() {
        return Err(invalid_batch(faults));
    }
    let events = checked;
    let began = Instant::now();
    let outcomes = api.pubsub.publish_all(topic, events).await;
    api.metrics.appended(began.elapsed());
    let receipts: Vec<Option<Document<'_>>> =
        outcomes.iter().map(|outcome| outcome.as_ref().ok().map(Document::from)).collect();
    let Some(error) = worst(outcomes.iter().filter_map(|outcome| outcome.as_ref().err())) else {
        let receipts = Published::Batch(receipts.into_iter().flatten().collect());
        let document = serde_json::to_vec(&receipts).unwrap_or_default();
        return Ok((StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], document).into_response());
    };
    let stored = receipts.iter().flatten().count();
    if stored == 0 {
        return Err(Problem::from(error));
    }
    let problem = Problem::from(error);
    let code = if problem.code() == Code::OutcomeUnknown { Code::OutcomeUnknown } else { Code::Unavailable };
    let detail = format!(
        "{stored} of {} events are stored and have a receipt; send the others again. {}",
        receipts.len(),
        problem.detail()
    );
    let receipts = receipts.iter().map(|receipt| serde_json::to_value(receipt).unwrap_or_default()).collect();
    let wait = problem.retry_after().unwrap_or(Duration::from_secs(1));
    Err(Problem::new(code, detail).with_receipts(receipts).with_retry_after(wait))
}

/// The error that says most about a batch: an open outcome before all others.
fn worst<'a>(mut errors: impl Iterator<Item = &'a Error>) -> Option<&'a Error> {
    let first = errors.next()?;
    if first.applied() == Applied::Unknown {
        return Some(first);
    }
    Some(errors.find(|error| error.applied() == Applied::Unknown).unwrap_or(first))
}

/// The canonical name of a topic in a path or a parameter.
pub(super) fn topic_name(text: String) -> Result<TopicName, Problem> {
    TopicName::from_edge(text).map_err(|error| Problem::new(Code::InvalidArgument, sentence(&error.to_string())))
}

/// An event around a body that is none.
fn wrap(api: &Api, headers: &HeaderMap, query: &Query<'_>, body: Bytes) -> Result<Event, Problem> {
    let id = match headers.get(IDEMPOTENCY_KEY) {
        Some(value) => {
            let refuse = |_| Problem::new(Code::InvalidArgument, "The Idempotency-Key is not printable ASCII.");
            ByteString::from(value.to_str().map_err(refuse)?)
        }
        None => {
            let random = &api.environment.random;
            ByteString::from(format!("{:016x}{:016x}", random.bits(), random.bits()))
        }
    };
    let source = query.one("source")?.unwrap_or(SOURCE_DEFAULT);
    let kind = query.one("type")?.unwrap_or(TYPE_DEFAULT);
    let mut builder = Event::builder(id, source, kind);
    if let Some(subject) = query.one("subject")? {
        builder = builder.subject(subject);
    }
    if let Some(key) = query.one("partitionkey")? {
        builder = builder.extension(ByteString::from_static("partitionkey"), Value::String(key.into()));
    }
    let content_type = match headers.get(header::CONTENT_TYPE) {
        Some(value) => {
            let refuse = |_| Problem::new(Code::UnsupportedMediaType, "The Content-Type is not printable ASCII.");
            Some(ByteString::from(value.to_str().map_err(refuse)?))
        }
        None => None,
    };
    let data = binding::data_of(body, content_type.as_deref(), &api.limits)
        .map_err(|reason| Problem::new(Code::InvalidEvent, sentence(&format!("data {reason}"))))?;
    if let Some(content_type) = content_type {
        builder = builder.data_content_type(content_type);
    }
    Ok(builder.data(data).build()?)
}

/// The one mapping from what is no event, in any format, to problems.
pub(super) fn problem(error: &ReadError) -> Problem {
    match error {
        ReadError::UnsupportedMediaType(_) => Problem::new(Code::UnsupportedMediaType, sentence(&error.to_string())),
        ReadError::Malformed(malformed) => Problem::new(Code::InvalidEvent, sentence(&malformed.to_string())),
        ReadError::Undecodable(undecodable) => Problem::new(Code::InvalidEvent, sentence(&undecodable.to_string())),
        ReadError::Invalid(faults) => Problem::from(faults.clone()),
        ReadError::InvalidBatch(faults) => {
            let of = |index, faults: &Faults| faults.0.clone().into_iter().map(move |fault| in_batch(index, fault));
            invalid_batch(faults.events.iter().flat_map(|event| of(event.index, &event.faults)))
        }
        ReadError::TooLarge(too_large) => {
            let code = match too_large.limit {
                Limit::BatchEvents => Code::BodyTooLarge,
                Limit::EventBytes | Limit::EventAttributesBytes | Limit::EventAttributes => Code::EventTooLarge,
            };
            Problem::new(code, sentence(&too_large.to_string()))
        }
    }
}

/// A fault of an event of a batch, named by the event's index.
fn in_batch(index: usize, fault: Fault) -> Fault {
    let attribute = format!("{index}.{}", fault.attribute).trim_end_matches('.').into();
    Fault { attribute, reason: fault.reason }
}

fn invalid_batch(faults: impl IntoIterator<Item = Fault>) -> Problem {
    Problem::new(
        Code::InvalidEvent,
        "Nothing of the batch was stored: events break rules of CloudEvents 1.0. Each fault names the event by its \
         index, from 0.",
    )
    .with_faults(faults)
}
