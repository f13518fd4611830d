//! `OPTIONS /topics/{topic}` and `OPTIONS /events`: the consent that senders of CloudEvents web hooks ask for before they
//! deliver (HTTP web hooks 1.0.3, section 4; Azure Event Grid is one). It is no authentication: who may publish is decided
//! when somebody publishes.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::Shared;
use super::openapi::{READ, refusals};
use super::publish::{DEFAULT_TOPIC, topic_name};
use crate::edge::problem::{Code, Problem};
use crate::sink::REQUEST_ORIGIN;

const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
/// No bound of ours: what is too much for the queues is answered with 429 and `Retry-After`, which senders obey.
const ANY_RATE: HeaderValue = HeaderValue::from_static("*");

refusals! {
    Refusals: READ, &[
        Code::MethodNotAllowed, Code::InvalidArgument, Code::Forbidden, Code::TopicNotFound, Code::NotFound,
    ];
}

/// Consent to be sent events on the topic `events`
///
/// As `OPTIONS /topics/{topic}`.
#[utoipa::path(options, path = "/events", operation_id = "consentToDefault", tag = "Events",
    params(("WebHook-Request-Origin" = String, Header, description = "Who asks: a name of the DNS.")),
    responses((status = 204, description = "`WebHook-Allowed-Origin` and `WebHook-Allowed-Rate` say yes."), Refusals))]
pub(super) async fn of_default(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, Problem> {
    answer(&api, DEFAULT_TOPIC.to_owned(), &headers, "POST,OPTIONS")
}

/// Consent to be sent events on a topic
///
/// The handshake that senders of CloudEvents web hooks make before they deliver. It is no authentication.
#[utoipa::path(options, path = "/topics/{topic}", operation_id = "consent", tag = "Events",
    params(
        ("topic" = String, Path, description = "The topic's name.", example = "orders"),
        ("WebHook-Request-Origin" = String, Header, description = "Who asks: a name of the DNS."),
    ),
    responses((status = 204, description = "`WebHook-Allowed-Origin` and `WebHook-Allowed-Rate` say yes."), Refusals))]
pub(super) async fn of_topic(
    State(api): State<Shared>,
    Path(topic): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    answer(&api, topic, &headers, "GET,HEAD,PUT,DELETE,POST,OPTIONS")
}

fn answer(api: &Shared, topic: String, headers: &HeaderMap, allow: &'static str) -> Result<Response, Problem> {
    let allow = HeaderValue::from_static(allow);
    let Some(origin) = headers.get(REQUEST_ORIGIN) else {
        let detail =
            "OPTIONS is answered to senders of web hooks only, which say who they are in WebHook-Request-Origin.";
        return Err(Problem::new(Code::MethodNotAllowed, detail).with_allow(allow));
    };
    if origin.is_empty() || headers.get_all(REQUEST_ORIGIN).iter().count() > 1 {
        let detail = "WebHook-Request-Origin does not name one sender.";
        return Err(Problem::new(Code::InvalidArgument, detail));
    }
    let name = topic_name(topic)?;
    // No consent for what would be refused: the sender hears so now and not with each event.
    api.pubsub.takes_events(&name)?;
    let headers = [(header::ALLOW, allow), (ALLOWED_ORIGIN, origin.clone()), (ALLOWED_RATE, ANY_RATE)];
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}
