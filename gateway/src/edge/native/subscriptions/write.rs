//! `POST /subscriptions`, `PUT` and `DELETE /subscriptions/{id}`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tidegate_resources::{Id, ObjectFault, subscription_of_object};
use tidegate_schemas::Fault;
use utoipa::ToSchema;

use super::super::openapi::{BODY, WRITE, refusals, schemas};
use super::super::query::encode;
use super::super::{Api, Shared, precondition};
use super::{Document, document, statuses};
use crate::blocks::pubsub::{Expected, Outcome, PubSub};
use crate::edge::listener::read_body;
use crate::edge::problem::{Code, Problem};

/// What a subscription is asked for with, in the form of the CloudEvents Subscriptions API. Read by
/// [`subscription_of_object`], which tells every fault; here it is only described.
#[derive(Deserialize, ToSchema)]
#[schema(as = SubscriptionSpec, examples(json!({
    "id": "large-orders", "sink": "https://example.com/hook", "protocol": "HTTP", "types": ["com.example.order.placed"],
    "filters": [{"sql": "amount > 100"}],
    "config": {"topics": ["orders.placed"], "delivery": {"timeout": "15s", "retry": {"maxAttempts": 20}}}
})))]
#[expect(dead_code, reason = "names the members for the description of the API")]
struct Wanted {
    /// Letters, digits, `_`, `-` and `.`; made up where there is none.
    id: Option<String>,
    /// Only events of this source; becomes a filter.
    source: Option<String>,
    /// Only events of these types; becomes a filter.
    types: Option<Vec<String>>,
    /// Further filters; all must pass.
    #[schema(value_type = Option<Vec<schemas::Filter>>)]
    filters: Option<serde_json::Value>,
    /// `http://`, `https://` or `topic://`. Public addresses only, unless the gateway is configured otherwise.
    sink: String,
    /// `HTTP`.
    protocol: Option<String>,
    config: WantedConfig,
}

/// What is ours of a subscription.
#[derive(Deserialize, ToSchema)]
#[schema(as = SubscriptionConfigSpec)]
#[expect(dead_code, reason = "names the members for the description of the API")]
struct WantedConfig {
    /// Names, or patterns with `*` for one segment and `**` for the rest.
    topics: Vec<String>,
    /// As `delivery` of the `Subscription` resource: `order`, `maxInFlight`, `timeout`, `retry`, `onExhausted`,
    /// `deadLetterTopic` and `from`, which counts where the subscription is new.
    #[schema(value_type = Option<Object>)]
    delivery: Option<serde_json::Value>,
}

refusals! {
    CreateRefusals: BODY, WRITE, &[Code::InvalidResource, Code::Forbidden, Code::NotFound, Code::OwnedByFile];
    PutRefusals: BODY, WRITE, &[
        Code::InvalidArgument, Code::InvalidResource, Code::Forbidden, Code::NotFound, Code::OwnedByFile,
        Code::PreconditionFailed,
    ];
    DeleteRefusals: WRITE, &[
        Code::InvalidArgument, Code::SubscriptionNotFound, Code::NotFound, Code::OwnedByFile, Code::PreconditionFailed,
    ];
}

/// Create a subscription
///
/// Its id is the one that is given, or a new one. Events are delivered from `config.delivery.from` on, which is what comes
/// from now on where nothing is said.
#[utoipa::path(post, path = "/subscriptions", operation_id = "createSubscription", tag = "Subscriptions",
    request_body(content = Wanted),
    responses(
        (status = 201, description = "It was created.", body = Document<'static>, headers(
            ("Location" = String, description = "Where it is."),
            ("ETag" = String, description = "For `If-Match`."),
        )),
        CreateRefusals
    ))]
pub(in crate::edge::native) async fn create(State(api): State<Shared>, request: Request) -> Result<Response, Problem> {
    let body = read_body(Body::new(request.into_body())).await?;
    let random = &api.environment.random;
    let generated = format!("s{:016x}", random.bits());
    let wanted = subscription_of_object(&body, Id::Generated(generated)).map_err(faulty)?;
    if api.pubsub.subscription(&wanted.name).is_some_and(|existing| existing.spec.origin == super::Origin::Api) {
        let detail = format!("The subscription {} exists already; change it with PUT.", wanted.name);
        return Err(Problem::new(Code::Conflict, detail));
    }
    put(&api, &wanted, &Expected { absent: true, ..Expected::default() }).await
}

/// Create a subscription of that id, or change what it asks for
///
/// Its progress stays. What `GET` shows can be sent back. A subscription that a file owns changes only there.
#[utoipa::path(put, path = "/subscriptions/{id}", operation_id = "putSubscription", tag = "Subscriptions",
    params(
        ("id" = String, Path, description = "The subscription's id.", example = "large-orders"),
        ("If-Match" = Option<String>, Header, description = "Changes it only where it has this `ETag`; `*`: only where it \
            is there."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: creates it, and never changes one."),
    ),
    request_body(content = Wanted),
    responses(
        (status = 200, description = "It is as asked.", body = Document<'static>,
            headers(("ETag" = String, description = "For `If-Match`."))),
        (status = 201, description = "It was created.", body = Document<'static>, headers(
            ("Location" = String, description = "Where it is."),
            ("ETag" = String, description = "For `If-Match`."),
        )),
        PutRefusals
    ))]
pub(in crate::edge::native) async fn replace(
    State(api): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let expected = precondition::read(request.headers())?;
    let body = read_body(Body::new(request.into_body())).await?;
    let wanted = subscription_of_object(&body, Id::OfPath(id)).map_err(faulty)?;
    put(&api, &wanted, &expected).await
}

async fn put(api: &Api, wanted: &tidegate_resources::Subscription, expected: &Expected) -> Result<Response, Problem> {
    let (subscription, outcome) = api.pubsub.put_subscription(wanted, expected).await?;
    let etag = precondition::etag(&PubSub::tag(&subscription))?;
    let mut response = Json(document(&subscription, &statuses(api, &subscription).await)).into_response();
    response.headers_mut().insert(header::ETAG, etag);
    if outcome == Outcome::Created {
        *response.status_mut() = StatusCode::CREATED;
        let location = HeaderValue::from_str(&format!("/subscriptions/{}", encode(&wanted.name)))
            .map_err(|_| Problem::new(Code::Internal, "A header could not be written."))?;
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Delete a subscription
///
/// Nothing is delivered to it any more, and its progress is forgotten: one that is created with the same id is new. Its
/// dead letters stay in their topic. A subscription that a file owns is deleted only there.
#[utoipa::path(delete, path = "/subscriptions/{id}", operation_id = "deleteSubscription", tag = "Subscriptions",
    params(
        ("id" = String, Path, description = "The subscription's id.", example = "large-orders"),
        ("If-Match" = Option<String>, Header, description = "Deletes it only where it has this `ETag`."),
    ),
    responses((status = 204, description = "It is gone."), DeleteRefusals))]
pub(in crate::edge::native) async fn delete(
    State(api): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let expected = precondition::read(&headers)?;
    api.pubsub.end_subscription(&ByteString::from(id), &expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn faulty(faults: Vec<ObjectFault>) -> Problem {
    let faults = faults
        .into_iter()
        .map(|fault| Fault { attribute: ByteString::from(fault.pointer), reason: fault.reason })
        .collect::<Vec<_>>();
    Problem::new(Code::InvalidResource, "The subscription is refused; every fault is listed with its JSON pointer.")
        .with_faults(faults)
}
