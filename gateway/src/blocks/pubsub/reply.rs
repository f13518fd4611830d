//! Replies: what a sink answers as an event, and who waits for it.
//!
//! An answer 200 whose body is a CloudEvent, in binary or structured mode, is the reply to the event that was delivered;
//! no other answer is one, and a 202 never is. Sinks learn from `Prefer: reply` that a reply is taken.
//!
//! Who waits for a reply sits at the gateway that published the request, and its delivery may be that of another: `elsewhere`.

mod elsewhere;
mod waiters;

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tidegate_backbone::catalogue::Topic;
use tidegate_backbone::publish::Receipt;
use tidegate_routing::hops;
use tidegate_schemas::http::{self as binding, Message};
use tidegate_schemas::limits::{self, Limits};
use tidegate_schemas::{Event, Value};
use tokio::time::Instant;

use super::PubSub;
use crate::sink::{self, webhook_id};

pub(super) use self::elsewhere::Elsewhere;
pub(super) use self::waiters::Waiters;

/// The preference by which a sink is told that its reply is taken (RFC 7240).
pub(super) const PREFER: (HeaderName, HeaderValue) =
    (HeaderName::from_static("prefer"), HeaderValue::from_static("reply"));
const ID: HeaderName = HeaderName::from_static("ce-id");
/// Attributes that lead from a reply to its request, and are taken over where the reply does not say them.
const CORRELATION: [&str; 3] = ["correlationid", "traceparent", "tracestate"];
const CAUSATION: &str = "causationid";

/// The reply in an answer, if there is one, as it is published: with an id that is the same for each attempt where it has
/// none, with what leads to its request, and one hop older. The error says why an answer that means to be one is not.
pub(super) fn read(uid: &str, request: &Event, answer: &sink::Answer) -> Result<Option<Event>, String> {
    if answer.status != StatusCode::OK || !is_event(&answer.headers) {
        return Ok(None);
    }
    if answer.truncated {
        return Err(format!("it is longer than {} bytes", limits::SINK_RESPONSE_BYTES));
    }
    let id = webhook_id(uid, request.source(), request.id());
    let mut headers = answer.headers.clone();
    let mut body = answer.body.clone();
    if is_structured(&headers) {
        body = with_id(body, &id);
    } else if !headers.contains_key(ID) {
        headers.insert(ID, HeaderValue::from_str(&id).expect("hexadecimal digits are a header value"));
    }
    let reply = match binding::read(&headers, body, &Limits::default()) {
        Ok(Message::Event(event)) => event,
        Ok(Message::None) => return Ok(None),
        Ok(Message::Batch(_)) => return Err("it is a batch, and a reply is one event".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let missing = |name: &str| reply.extension(name).is_none();
    let mut taken_over: Vec<(&str, Value)> = CORRELATION
        .into_iter()
        .filter(|name| missing(name))
        .filter_map(|name| Some((name, request.extension(name)?.clone())))
        .collect();
    if missing(CAUSATION) {
        taken_over.push((CAUSATION, Value::String(request.id().clone())));
    }
    let builder = taken_over
        .into_iter()
        .fold(reply.into_builder(), |builder, (name, value)| builder.extension(ByteString::from(name), value));
    let reply = builder.build().map_err(|faults| faults.to_string())?;
    hops::follow(request, reply).map(Some).map_err(|error| error.to_string())
}

fn is_event(headers: &HeaderMap) -> bool {
    is_structured(headers) || headers.keys().any(|name| name.as_str().starts_with("ce-"))
}

fn is_structured(headers: &HeaderMap) -> bool {
    const PREFIX: &[u8] = b"application/cloudevents";
    let value = headers.get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes).trim_ascii_start();
    value.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// A JSON event with an id, where it has none. Nothing else of its text is touched.
fn with_id(body: Bytes, id: &str) -> Bytes {
    #[derive(serde::Deserialize)]
    struct Identity {
        id: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Identity>(&body) {
        Ok(Identity { id: None }) => {}
        _ => return body,
    }
    let Some(brace) = body.iter().position(|byte| *byte == b'{') else { return body };
    let (before, after) = body.split_at(brace + 1);
    let comma = if after.trim_ascii_start().starts_with(b"}") { "" } else { "," };
    [before, format!(r#""id":"{id}"{comma}"#).as_bytes(), after].concat().into()
}

/// Why a request on a topic has no reply.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nothing was published: no subscription takes the event.
    #[error("nobody is subscribed to {topic} who takes this event, so nothing was published")]
    NobodySubscribed {
        /// The topic.
        topic: ByteString,
    },
    /// Nothing was published: too many wait already.
    #[error("{} requests wait for replies already, so nothing was published", limits::REPLY_WAITERS)]
    TooMany,
    /// It was not published, or perhaps.
    #[error(transparent)]
    Publish(#[from] tidegate_backbone::Error),
    /// It was published, and no reply came in time.
    #[error("the event is stored, and no reply came within {timeout:?}")]
    NoReply {
        /// What was waited for.
        timeout: Duration,
        /// Where the event is.
        receipt: Box<Receipt>,
    },
}

impl PubSub {
    /// Publishes an event and waits for the first reply to it, whichever gateway delivers it.
    pub async fn request(&self, topic: &Topic, event: Event, timeout: Duration) -> Result<Event, RequestError> {
        if !self.0.consume.is_wanted(&topic.spec.name, &event) {
            return Err(RequestError::NobodySubscribed { topic: topic.spec.name.as_byte_string().clone() });
        }
        let mut waiter = self.0.waiters.wait(&event).ok_or(RequestError::TooMany)?;
        let until = Instant::now() + timeout;
        // Before the event is there: whoever delivers it must know by then that its reply is wanted.
        let mut owner = self.owner_told(topic, &event, until);
        owner.follow().await;
        let receipt = self.publish(topic, event).await?;
        loop {
            tokio::select! {
                reply = &mut waiter.reply => match reply {
                    Ok(reply) => return Ok(reply),
                    Err(_) => break,
                },
                () = tokio::time::sleep_until(until) => break,
                // It may have another owner by now.
                () = tokio::time::sleep(limits::REPLY_OWNER_INTERVAL) => owner.follow().await,
            }
        }
        Err(RequestError::NoReply { timeout, receipt: Box::new(receipt) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Event {
        let text = |text: &'static str| Value::String(text.into());
        Event::builder("7", "/shop", "ask")
            .extension("correlationid", text("c-1"))
            .extension("traceparent", text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
            .extension(hops::ATTRIBUTE, Value::Integer(3))
            .build()
            .unwrap()
    }

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> sink::Answer {
        sink::Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
            body: Bytes::from_static(body.as_bytes()),
            truncated: false,
            duration: Duration::ZERO,
        }
    }

    const BINARY: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("ce-source", "/r"), ("ce-type", "answer"), ("content-type", "application/json")];
    const STRUCTURED: (&str, &str) = ("content-type", "Application/CloudEvents+json; charset=utf-8");

    fn attribute(reply: &Event, name: &str) -> Option<String> {
        reply.attribute(name).map(|value| value.into_owned())
    }

    #[test]
    fn a_reply_in_either_mode_leads_to_its_request_and_is_one_hop_older() {
        let structured = r#" { "specversion":"1.0","source":"/r","type":"answer","data": {"n": 1.50} }"#;
        for answer in [answer(200, &BINARY, r#"{"n": 1.50}"#), answer(200, &[STRUCTURED], structured)] {
            let reply = read("u", &request(), &answer).unwrap().unwrap();
            assert_eq!(reply.data().as_bytes(), br#"{"n": 1.50}"#, "the payload's bytes are kept");
            assert_eq!(**reply.id(), *webhook_id("u", "/shop", "7"), "the same for each attempt");
            assert_eq!(attribute(&reply, "correlationid").as_deref(), Some("c-1"));
            assert_eq!(attribute(&reply, "causationid").as_deref(), Some("7"));
            assert_eq!(attribute(&reply, "traceparent"), attribute(&request(), "traceparent"));
            assert_eq!(hops::hops_of(&reply), 4);
        }
    }

    #[test]
    fn what_a_reply_says_itself_stays() {
        let text =
            r#"{"specversion":"1.0","id":"own","source":"/r","type":"answer","causationid":"x","correlationid":"y"}"#;
        let reply = read("u", &request(), &answer(200, &[STRUCTURED], text)).unwrap().unwrap();
        assert_eq!(&**reply.id(), "own");
        assert_eq!(attribute(&reply, "causationid").as_deref(), Some("x"));
        assert_eq!(attribute(&reply, "correlationid").as_deref(), Some("y"));
    }

    #[test]
    fn other_answers_are_no_replies_and_invalid_ones_are_told() {
        for status in [201, 202, 204, 400, 500] {
            assert_eq!(read("u", &request(), &answer(status, &BINARY, "{}")), Ok(None), "{status}");
        }
        assert_eq!(read("u", &request(), &answer(200, &[("content-type", "application/json")], "{}")), Ok(None));
        assert_eq!(read("u", &request(), &answer(200, &[], "")), Ok(None));
        let batch = ("content-type", "application/cloudevents-batch+json");
        for (answer, what) in [
            (answer(200, &BINARY[..2], "{}"), "type"),
            (answer(200, &[STRUCTURED], "{"), ""),
            (answer(200, &[STRUCTURED], "{}"), "source"),
            (answer(200, &[batch], "[]"), "batch"),
            (sink::Answer { truncated: true, ..answer(200, &BINARY, "{") }, "longer than"),
        ] {
            let reason = read("u", &request(), &answer).unwrap_err();
            assert!(reason.contains(what), "{what}: {reason}");
        }
    }

    #[test]
    fn an_event_that_went_round_has_no_reply() {
        let request = request().into_builder().extension(hops::ATTRIBUTE, Value::Integer(16)).build().unwrap();
        assert!(read("u", &request, &answer(200, &BINARY, "{}")).unwrap_err().contains("hops"));
    }
}
