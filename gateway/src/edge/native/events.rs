//! `GET /topics/{topic}/events`: a topic read back as a page, as lines, or followed.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use tidegate_backbone::{Cursor, Position};
use tidegate_routing::cesql::Expression;
use tidegate_schemas::{Format, http as binding, json, limits, protobuf, sse};

use super::accept::preferred;
use super::openapi::schemas::CloudEvent;
use super::openapi::{READ, refusals};
use super::query::{Query, encode};
use super::topics::find;
use super::{Shared, time};
use crate::blocks::pubsub::{Range, Reading, Span};
use crate::edge::problem::{Code, Problem};
use crate::telemetry::metrics::Follower;

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1_000;
/// A comment is sent when nothing else was for so long, so that nobody in between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Where a page ends, or where following begins.
pub(super) const POSITION: &str = "tidegate-position";

/// How the events are given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Batch(Format),
    Lines,
    Follow,
}

/// What a client may accept, what it wants most of all first where it does not say.
const FORMS: [(&str, Form); 7] = [
    (json::BATCH_MEDIA_TYPE, Form::Batch(Format::Json)),
    ("application/json", Form::Batch(Format::Json)),
    (protobuf::BATCH_MEDIA_TYPE, Form::Batch(Format::Protobuf)),
    (json::LINES_MEDIA_TYPE, Form::Lines),
    ("application/ndjson", Form::Lines),
    ("application/jsonl", Form::Lines),
    (sse::MEDIA_TYPE, Form::Follow),
];

impl Form {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let offers = FORMS.map(|(media_type, _)| media_type);
        preferred(accepted, &offers).map(|index| FORMS[index].1).ok_or_else(|| {
            Problem::new(
                Code::NotAcceptable,
                "Events are given as application/cloudevents-batch+json, application/cloudevents-batch+protobuf, \
                 application/x-ndjson or text/event-stream.",
            )
        })
    }
}

refusals! {
    Refusals: READ, &[
        Code::InvalidArgument, Code::TopicNotFound, Code::NotFound, Code::NotAcceptable, Code::PositionLost,
    ];
}

/// Read a topic back
///
/// As a page, which is followed by the one that `Link` names with `rel="next"`; as lines, a page too; or as a stream of
/// server-sent events that goes on with what is published (`Accept: text/event-stream`; `Last-Event-ID` resumes).
#[utoipa::path(get, path = "/topics/{topic}/events", operation_id = "readEvents", tag = "Events",
    params(
        ("topic" = String, Path, description = "The topic's name.", example = "orders"),
        ("from" = Option<String>, Query, description = "Where to begin: `earliest` (default of pages), `latest` (default of \
            streams), a position that the gateway gave, an RFC 3339 time, or an offset together with `partition`.",
            example = "earliest"),
        ("to" = Option<String>, Query, description = "Where to end, in the same forms; `latest` where nothing is given. Not \
            for streams."),
        ("filter" = Option<String>, Query, description = "Only events that this expression of CloudEvents SQL lets pass.",
            example = "type LIKE 'com.example.%'"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "The most events of a page; 100 where \
            nothing is given. Not for streams."),
        ("partition" = Option<u32>, Query, description = "Only this partition."),
        ("Last-Event-ID" = Option<String>, Header, description = "Streams: the `id` of the last event that was seen."),
    ),
    responses(
        (status = 200, description = "The events.", content(
            (Vec<CloudEvent> = "application/cloudevents-batch+json"),
            ("application/cloudevents-batch+protobuf"),
            (CloudEvent = "application/x-ndjson"),
            (String = "text/event-stream"),
        ), headers(
            ("tidegate-position" = String, description = "Where the page ends, or where the stream begins."),
            ("Link" = String, description = "The next page, with `rel=\"next\"`; absent from the last."),
        )),
        Refusals
    ))]
pub(super) async fn read(
    State(api): State<Shared>,
    Path(name): Path<String>,
    RawQuery(text): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let form = Form::of(&headers)?;
    let topic = find(&api, name)?;
    let query = Query::parse(text.as_deref(), &["from", "to", "filter", "limit", "partition"])?;
    let Part { partition, filter } = Part::of(&query)?;
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok()).filter(|_| form == Form::Follow);
    let default = if form == Form::Follow { Range::Latest } else { Range::Earliest };
    let from = range("from", resumed.or(query.one("from")?), default)?;
    let from = api.pubsub.resolve(&topic, &from, partition).await?;
    if form == Form::Follow {
        if query.one("to")?.is_some() || query.one("limit")?.is_some() {
            return Err(Problem::new(
                Code::InvalidArgument,
                "A stream that follows has no end: to and limit are for pages.",
            ));
        }
        let position = header_value(&from.to_string())?;
        let reading = api.pubsub.follow(&topic, from, partition, filter).await?;
        let mut response = follow(reading, api.environment.stopping().clone(), api.metrics.follower("sse"));
        response.headers_mut().insert(POSITION, position);
        return Ok(response);
    }
    let to = range("to", query.one("to")?, Range::Latest)?;
    let to = api.pubsub.resolve(&topic, &to, partition).await?;
    let limit = query.number("limit", PAGE_DEFAULT, PAGE_MAX)?;
    let page =
        api.pubsub.page(&topic, &Span { from, to, partition, filter }, limit, limits::REQUEST_BODY_BYTES).await?;
    let mut response = match form {
        Form::Batch(format) => binding::write_batch_as(format, &page.events).into_response(),
        Form::Lines | Form::Follow => {
            let mut lines = Vec::new();
            for event in &page.events {
                json::write_line(event, &mut lines);
                lines.push(b'\n');
            }
            ([(header::CONTENT_TYPE, json::LINES_MEDIA_TYPE)], lines).into_response()
        }
    };
    let next = page.next.to_string();
    response.headers_mut().insert(POSITION, header_value(&next)?);
    if page.more {
        let partition = partition.map_or_else(String::new, |partition| format!("&partition={partition}"));
        let to = query.one("to")?.map_or_else(String::new, |to| format!("&to={to}"));
        let filter = query.one("filter")?.map_or_else(String::new, |filter| format!("&filter={}", encode(filter)));
        let link = format!(
            "</topics/{}/events?from={next}&limit={limit}{partition}{to}{filter}>; rel=\"next\"",
            topic.spec.name
        );
        response.headers_mut().insert(header::LINK, header_value(&link)?);
    }
    Ok(response)
}

/// What part of a topic a request asks for.
pub(super) struct Part {
    /// The one partition, or all.
    pub(super) partition: Option<u32>,
    /// Only events that pass.
    pub(super) filter: Option<Expression>,
}

impl Part {
    /// Reads the parameters `partition` and `filter`.
    pub(super) fn of(query: &Query<'_>) -> Result<Self, Problem> {
        let partition =
            match query.one("partition")? {
                Some(number) => Some(number.parse::<u32>().map_err(|_| {
                    Problem::new(Code::InvalidArgument, format!("partition is a number, not {number:?}."))
                })?),
                None => None,
            };
        let filter = match query.one("filter")? {
            Some(text) => Some(Expression::parse(text).map_err(|error| {
                Problem::new(Code::InvalidArgument, format!("filter is not an expression of CloudEvents SQL: {error}."))
            })?),
            None => None,
        };
        Ok(Self { partition, filter })
    }
}

pub(super) fn header_value(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|_| Problem::new(Code::Internal, "A header could not be written."))
}

/// The place that a parameter names.
pub(super) fn range(name: &str, text: Option<&str>, default: Range) -> Result<Range, Problem> {
    let Some(text) = text else { return Ok(default) };
    if let Ok(cursor) = text.parse::<Cursor>() {
        return Ok(Range::At(cursor));
    }
    if let Ok(offset) = text.parse::<u64>() {
        return Ok(Range::Offset(Position(offset)));
    }
    match text {
        "earliest" => Ok(Range::Earliest),
        "latest" => Ok(Range::Latest),
        _ => time::parse(text).map(Range::Time).ok_or_else(|| {
            let detail = format!(
                "{name}={text:?} is no place in a topic; use earliest, latest, a position that the gateway gave (c12), an \
                 RFC 3339 time, or an offset together with partition=."
            );
            Problem::new(Code::InvalidArgument, detail)
        }),
    }
}

/// Server-sent events: `id` is the position behind the event, so that `Last-Event-ID` goes on where the client was.
fn follow(reading: Reading, stopping: tokio_util::sync::CancellationToken, follower: Follower) -> Response {
    let opened = Bytes::from_static(b": following\n\n");
    let events = stream::unfold(Some((reading, stopping, Some(opened))), move |state| {
        // Counted as long as the stream is there, polled or not.
        let _follower = &follower;
        async move {
            let (mut reading, stopping, opened) = state?;
            if let Some(opened) = opened {
                return Some((Ok::<_, Infallible>(opened), Some((reading, stopping, None))));
            }
            let next = tokio::select! {
                () = stopping.cancelled() => return None,
                next = tokio::time::timeout(KEEP_ALIVE, reading.next()) => next,
            };
            match next {
                Err(_) => Some((Ok(Bytes::from_static(b": still here\n\n")), Some((reading, stopping, None)))),
                Ok(None) => None,
                Ok(Some(Ok((event, cursor)))) => {
                    let mut text = Vec::new();
                    sse::write_event(&event, &cursor.to_string(), &mut text);
                    Some((Ok(Bytes::from(text)), Some((reading, stopping, None))))
                }
                Ok(Some(Err(error))) => {
                    let mut text = Vec::new();
                    sse::write_problem(&Problem::from(error).document(), &mut text);
                    Some((Ok(Bytes::from(text)), None))
                }
            }
        }
    });
    let headers = [(header::CONTENT_TYPE, sse::MEDIA_TYPE), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(events)).into_response()
}
