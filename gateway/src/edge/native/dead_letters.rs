//! `/subscriptions/{id}/dead-letters`: listed with their causes, redriven, dropped.

use axum::Json;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tidegate_backbone::consume::{Cause, DeadLetter, LetterId};
use tidegate_schemas::json as format;

use super::body::read_json;
use super::query::Query;
use super::{Shared, time};
use crate::edge::problem::{Code, Problem};

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    dead_letters: Vec<Document>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct Document {
    id: String,
    at: String,
    cause: Cause,
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    ids: Option<Vec<String>>,
}

pub(super) async fn redrive(
    State(api): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let wanted: Chosen = read_json(request, Code::InvalidArgument, r#"{} for all, or {"ids": ["0-17"]}"#).await?;
    let ids = wanted.ids.map(|ids| ids.iter().map(|text| id(text)).collect::<Result<Vec<_>, _>>()).transpose()?;
    let redriven = api.pubsub.redrive(&ByteString::from(name), ids.as_deref()).await?;
    Ok(Json(json!({ "redriven": redriven })).into_response())
}

pub(super) async fn drop_some(
    State(api): State<Shared>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["id"])?;
    let ids = query.all("id").map(id).collect::<Result<Vec<_>, _>>()?;
    let ids = (!ids.is_empty()).then_some(ids);
    let dropped = api.pubsub.drop_dead_letters(&ByteString::from(name), ids.as_deref()).await?;
    Ok(Json(json!({ "dropped": dropped })).into_response())
}
