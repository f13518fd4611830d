//! `GET /topics/{topic}/ws`: the WebSocket binding of CloudEvents, both ways. Each message of the client publishes an
//! event, and the client is sent what is published, as server-sent events are.
//!
//! The binding has no acknowledgements. Where a client asks for them (`ack=true`), each of its messages is answered by one,
//! in the order of the messages; otherwise the first event that is not stored ends the connection with a code that says
//! why. So nobody has to take silence for a receipt. docs/websocket.md says it for users.

mod close;
mod handshake;
mod session;

use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;

use super::Shared;
use super::events::{POSITION, Part, header_value, range};
use super::openapi::{READ, WRITE, refusals};
use super::publish::topic_name;
use super::query::Query;
use crate::blocks::pubsub::Range;
use crate::edge::problem::{Code, Problem};
use handshake::Handshake;
use session::Session;

refusals! {
    Refusals: READ, WRITE, &[
        Code::InvalidArgument, Code::Forbidden, Code::TopicNotFound, Code::PositionLost, Code::UpgradeRequired,
    ];
}

/// Publish and follow over a WebSocket
///
/// The WebSocket binding of CloudEvents: each message is one event, in text frames of JSON (`cloudevents.json`) or binary
/// frames of protobuf (`cloudevents.proto`), as the client offers in `Sec-WebSocket-Protocol`. A topic that is not there is
/// created as publishing would create it.
#[utoipa::path(get, path = "/topics/{topic}/ws", operation_id = "openWebSocket", tag = "Events",
    params(
        ("topic" = String, Path, description = "The topic's name.", example = "orders"),
        ("ack" = Option<bool>, Query, description = "Answer each message with a receipt or a problem; `false` where nothing \
            is given, and then the first event that is not stored ends the connection."),
        ("follow" = Option<bool>, Query, description = "Send what is published; `true` where nothing is given."),
        ("from" = Option<String>, Query, description = "Where following begins: `latest` (default), `earliest`, a position \
            that the gateway gave, an RFC 3339 time, or an offset together with `partition`.", example = "earliest"),
        ("filter" = Option<String>, Query, description = "Follow only events that this expression of CloudEvents SQL lets \
            pass.", example = "type LIKE 'com.example.%'"),
        ("partition" = Option<u32>, Query, description = "Follow only this partition."),
        ("Sec-WebSocket-Protocol" = String, Header, description = "`cloudevents.json`, `cloudevents.proto`, or both, the \
            preferred one first."),
    ),
    responses(
        (status = 101, description = "The connection is a WebSocket.", headers(
            ("Sec-WebSocket-Protocol" = String, description = "The format that was chosen."),
            ("tidegate-position" = String, description = "Where following begins."),
        )),
        Refusals
    ))]
pub(super) async fn connect(
    State(api): State<Shared>,
    Path(name): Path<String>,
    RawQuery(text): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let handshake = Handshake::read(&mut request.into_parts().0)?;
    let name = topic_name(name)?;
    let query = Query::parse(text.as_deref(), &["ack", "follow", "from", "filter", "partition"])?;
    let acknowledges = flag(&query, "ack", false)?;
    let follows = flag(&query, "follow", true)?;
    let Part { partition, filter } = Part::of(&query)?;
    let from = range("from", query.one("from")?, Range::Latest)?;
    let topic = api.pubsub.topic_for_publish(&name).await?;
    let from = api.pubsub.resolve(&topic, &from, partition).await?;
    let position = header_value(&from.to_string())?;
    let reading = match follows {
        true => Some(api.pubsub.follow(&topic, from, partition, filter).await?),
        false => None,
    };

    let session = Session::new(&api, topic, handshake.format, acknowledges, reading);
    let mut response = handshake.answer();
    api.environment.spawn(async move {
        if let Some(socket) = handshake.upgraded().await {
            session.run(socket).await;
        }
    });
    response.headers_mut().insert(POSITION, position);
    Ok(response)
}

fn flag(query: &Query<'_>, name: &str, default: bool) -> Result<bool, Problem> {
    match query.one(name)? {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(Problem::new(Code::InvalidArgument, format!("{name} is true or false, not {other:?}."))),
    }
}
