//! `/subscriptions/{id}/dead-letters`: listed with their causes, redriven, dropped.

use axum::Json;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_backbone::consume::{Cause, DeadLetter, LetterId};
use tidegate_schemas::json as format;
use utoipa::ToSchema;

use super::body::read_json;
use super::openapi::{BODY, READ, WRITE, refusals, schemas};
use super::query::Query;
use super::{Shared, time};
use crate::edge::problem::{Code, Problem};

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1_000;

/// Dead letters, oldest first.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetters)]
#[serde(rename_all = "camelCase")]
struct Listed {
    dead_letters: Vec<Document>,
    /// Where there are more: what `after` is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An event that could not be delivered.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
struct Document {
    /// Names the letter, not the event.
    #[schema(examples("0-17"))]
    id: String,
    /// When it became one, in RFC 3339.
    at: String,
    #[schema(schema_with = schemas::cause)]
    cause: Cause,
    #[schema(value_type = schemas::CloudEvent)]
    event: Box<RawValue>,
}

fn document(letter: DeadLetter) -> Result<Document, Problem> {
    let mut event = Vec::new();
    format::write(&letter.event, &mut event);
    let event = String::from_utf8(event).ok().and_then(|text| RawValue::from_string(text).ok());
    let event = event.ok_or_else(|| Problem::new(Code::Internal, "An event could not be written as JSON."))?;
    Ok(Document { id: letter.id.to_string(), at: time::text(letter.at), cause: letter.cause, event })
}

fn id(text: &str) -> Result<LetterId, Problem> {
    text.parse().map_err(|reason: String| Problem::new(Code::InvalidArgument, super::change::sentence(&reason)))
}

refusals! {
    ListRefusals: READ, &[Code::InvalidArgument, Code::SubscriptionNotFound, Code::NotFound, Code::PositionLost];
    RedriveRefusals: BODY, WRITE, &[Code::InvalidArgument, Code::SubscriptionNotFound, Code::NotFound];
    DropRefusals: WRITE, &[Code::InvalidArgument, Code::SubscriptionNotFound, Code::NotFound];
}

/// List dead letters
///
/// With what happened to each and the event itself.
#[utoipa::path(get, path = "/subscriptions/{id}/dead-letters", operation_id = "listDeadLetters", tag = "Dead letters",
    params(
        ("id" = String, Path, description = "The subscription's id.", example = "large-orders"),
        ("after" = Option<String>, Query, description = "Only those behind this one.", example = "0-17"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "The most that are given; 100 where \
            nothing is said."),
    ),
    responses((status = 200, description = "The dead letters.", body = Listed), ListRefusals))]
pub(super) async fn list(
    State(api): State<Shared>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit"])?;
    let after = query.one("after")?.map(id).transpose()?;
    let limit = query.number("limit", PAGE_DEFAULT, PAGE_MAX)?;
    let mut letters = api.pubsub.dead_letters(&ByteString::from(name), after, limit + 1).await?;
    let more = letters.len() > limit;
    letters.truncate(limit);
    let next = letters.last().filter(|_| more).map(|letter| letter.id.to_string());
    let dead_letters = letters.into_iter().map(document).collect::<Result<_, _>>()?;
    Ok(Json(Listed { dead_letters, next }).into_response())
}

/// Which dead letters.
#[derive(Default, Deserialize, ToSchema)]
#[schema(examples(json!({"ids": ["0-17"]})))]
#[serde(deny_unknown_fields)]
struct Chosen {
    /// All of them where nothing is said.
    ids: Option<Vec<String>>,
}

/// How many were sent again.
#[derive(Serialize, ToSchema)]
struct Redriven {
    redriven: usize,
}

/// How many are gone.
#[derive(Serialize, ToSchema)]
struct Dropped {
    dropped: usize,
}

/// Send dead letters again
///
/// To the subscription that could not deliver them, and to no other.
#[utoipa::path(post, path = "/subscriptions/{id}/dead-letters/redrive", operation_id = "redriveDeadLetters",
    tag = "Dead letters",
    params(("id" = String, Path, description = "The subscription's id.", example = "large-orders")),
    request_body(content = Option<Chosen>, description = "May be left out, which is all of them."),
    responses((status = 200, description = "They are on their way.", body = Redriven), RedriveRefusals))]
pub(super) async fn redrive(
    State(api): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let wanted: Chosen = read_json(request, Code::InvalidArgument, r#"{} for all, or {"ids": ["0-17"]}"#).await?;
    let ids = wanted.ids.map(|ids| ids.iter().map(|text| id(text)).collect::<Result<Vec<_>, _>>()).transpose()?;
    let redriven = api.pubsub.redrive(&ByteString::from(name), ids.as_deref()).await?;
    Ok(Json(Redriven { redriven }).into_response())
}

/// Drop dead letters
///
/// They are not delivered any more. Their events stay in their topics.
#[utoipa::path(delete, path = "/subscriptions/{id}/dead-letters", operation_id = "dropDeadLetters", tag = "Dead letters",
    params(
        ("id" = String, Path, description = "The subscription's id.", example = "large-orders"),
        ("id" = Option<Vec<String>>, Query, description = "Which; may stand many times. All of them where nothing is said.",
            example = json!(["0-17"])),
    ),
    responses((status = 200, description = "They are gone.", body = Dropped), DropRefusals))]
pub(super) async fn drop_some(
    State(api): State<Shared>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["id"])?;
    let ids = query.all("id").map(id).collect::<Result<Vec<_>, _>>()?;
    let ids = (!ids.is_empty()).then_some(ids);
    let dropped = api.pubsub.drop_dead_letters(&ByteString::from(name), ids.as_deref()).await?;
    Ok(Json(Dropped { dropped }).into_response())
}
