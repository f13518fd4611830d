//! `/subscriptions/{id}/dead-letters`: listed with their causes or counted by them, and dropped.

pub(super) mod redrive;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::value::RawValue;
use tidegate_backbone::consume::{
    Cause, DeadLetter, DeadLetterGroup, DeadLetterKind, LetterId, Selection, Whole, dead_letter_reason,
};
use tidegate_schemas::json as format;
use utoipa::ToSchema;

use super::openapi::{READ, WRITE, refusals, schemas};
use super::query::{Query, encode};
use super::{Shared, time};
use crate::edge::problem::{Code, Problem};

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1_000;
/// The parameters that choose dead letters.
const CHOOSING: [&str; 4] = ["cause", "reason", "status", "since"];

/// Dead letters, oldest first; or, where they are grouped, their groups, the largest first.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetters)]
#[serde(untagged)]
enum Listed {
    Letters(Letters),
    Groups(Groups),
}

/// Dead letters, oldest first within a partition of their topic.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterPage)]
#[serde(rename_all = "camelCase")]
struct Letters {
    dead_letters: Vec<Document>,
    /// Where there are more: what `after` is to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Slots whose owner did not answer in time, or that have none: their partitions are not in this answer. Missing where
    /// all answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_slots: Vec<u32>,
}

/// The groups of dead letters, the largest first.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterGroups)]
#[serde(rename_all = "camelCase")]
struct Groups {
    groups: Vec<Group>,
    /// Slots whose owner did not answer in time, or that have none: their partitions are not in this answer. Missing where
    /// all answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_slots: Vec<u32>,
}

/// Dead letters with the same reason and the same last answer.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterGroup)]
#[serde(rename_all = "camelCase")]
struct Group {
    /// What the parameter `cause` is to be for these.
    #[schema(examples("exhausted-503"))]
    cause: String,
    count: u64,
    /// When the first became one, in RFC 3339.
    first_at: String,
    /// When the last did.
    last_at: String,
    /// The id of the last.
    example: String,
    /// What the sink said to that one.
    detail: String,
}

impl From<DeadLetterGroup> for Group {
    fn from(group: DeadLetterGroup) -> Self {
        Self {
            cause: group.kind.to_string(),
            count: group.count,
            first_at: time::text(group.first_at),
            last_at: time::text(group.last_at),
            example: group.example.to_string(),
            detail: group.detail,
        }
    }
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

fn refused(reason: &str) -> Problem {
    Problem::new(Code::InvalidArgument, super::change::sentence(reason))
}

fn id(text: &str) -> Result<LetterId, Problem> {
    text.parse().map_err(|reason: String| refused(&reason))
}

/// What the words of a request choose; each may be missing.
fn selection(
    cause: Option<&str>,
    reason: Option<&str>,
    status: Option<u16>,
    since: Option<&str>,
) -> Result<Selection, Problem> {
    let kind = cause.map(str::parse::<DeadLetterKind>).transpose().map_err(|reason| refused(&reason))?;
    let reason = reason.map(dead_letter_reason).transpose().map_err(|reason| refused(&reason))?;
    let since = since
        .map(|text| time::parse(text).ok_or_else(|| refused(&format!("since={text:?} is no time of RFC 3339"))))
        .transpose()?;
    Ok(Selection { ids: None, kind, reason, status, since })
}

fn chosen(query: &Query<'_>) -> Result<Selection, Problem> {
    let status = query
        .one("status")?
        .map(|text| text.parse::<u16>().map_err(|_| refused(&format!("status={text:?} is no status of HTTP"))))
        .transpose()?;
    selection(query.one("cause")?, query.one("reason")?, status, query.one("since")?)
}

refusals! {
    ListRefusals: READ, &[Code::InvalidArgument, Code::SubscriptionNotFound, Code::NotFound, Code::PositionLost];
    DropRefusals: WRITE, &[Code::InvalidArgument, Code::SubscriptionNotFound, Code::NotFound, Code::PositionLost];
}

/// List dead letters, or count them by their cause
///
/// With what happened to each and the event itself. `group=cause` gives groups of those with the same reason and the same
/// last answer, with an example of each.
#[utoipa::path(get, path = "/subscriptions/{id}/dead-letters", operation_id = "listDeadLetters", tag = "Dead letters",
    params(
        ("id" = String, Path, description = "The subscription's id.", example = "large-orders"),
        ("after" = Option<String>, Query, description = "Only those behind this one. Not for groups.", example = "0-17"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "The most that are given; 100 where \
            nothing is said. Not for groups."),
        ("group" = Option<String>, Query, description = "`cause`: counts them.", example = "cause"),
        ("cause" = Option<String>, Query, description = "Only those of a group.", example = "exhausted-503"),
        ("reason" = Option<String>, Query, description = "Only those with this reason.", example = "exhausted"),
        ("status" = Option<u16>, Query, description = "Only those whose last answer had this status.", example = 503),
        ("since" = Option<String>, Query, description = "Only those from this time on, in RFC 3339."),
    ),
    responses(
        (status = 200, description = "The dead letters, or their groups.", body = Listed,
            headers(("Link" = String, description = "The next page, with `rel=\"next\"`; absent from the last."))),
        ListRefusals
    ))]
pub(super) async fn list(
    State(api): State<Shared>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let known = [&["after", "limit", "group"], &CHOOSING[..]].concat();
    let query = Query::parse(query.as_deref(), &known)?;
    let selection = chosen(&query)?;
    let name = ByteString::from(name);
    match query.one("group")? {
        None => {}
        Some("cause") => {
            if query.one("after")?.is_some() || query.one("limit")?.is_some() {
                return Err(refused("groups have no pages; leave after and limit out"));
            }
            let Whole { value, missing } = api.pubsub.dead_letter_groups(&name, &selection).await?;
            let groups = Groups { groups: value.into_iter().map(Group::from).collect(), missing_slots: missing };
            return Ok(Json(Listed::Groups(groups)).into_response());
        }
        Some(other) => return Err(refused(&format!("group is cause, not {other:?}"))),
    }
    let after = query.one("after")?.map(id).transpose()?;
    let limit = query.number("limit", PAGE_DEFAULT, PAGE_MAX)?;
    let Whole { value: mut letters, missing } = api.pubsub.dead_letters(&name, &selection, after, limit + 1).await?;
    let more = letters.len() > limit;
    letters.truncate(limit);
    let next = letters.last().filter(|_| more).map(|letter| letter.id.to_string());
    let dead_letters = letters.into_iter().map(document).collect::<Result<_, _>>()?;
    let link = next.as_ref().map(|next| {
        let mut link = format!("</subscriptions/{}/dead-letters?after={next}&limit={limit}", encode(&name));
        for parameter in CHOOSING {
            for value in query.all(parameter) {
                link.push_str(&format!("&{parameter}={}", encode(value)));
            }
        }
        HeaderValue::from_str(&format!("{link}>; rel=\"next\""))
    });
    let mut response = Json(Listed::Letters(Letters { dead_letters, next, missing_slots: missing })).into_response();
    if let Some(Ok(link)) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// How many are gone.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Dropped {
    dropped: usize,
    /// Slots whose owner did not answer in time, or that have none: their partitions are not in this answer. Missing where
    /// all answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_slots: Vec<u32>,
}

/// Drop dead letters
///
/// They are not delivered any more. Their events stay in their topics.
#[utoipa::path(delete, path = "/subscriptions/{id}/dead-letters", operation_id = "dropDeadLetters", tag = "Dead letters",
    params(
        ("id" = String, Path, description = "The subscription's id.", example = "large-orders"),
        ("id" = Option<Vec<String>>, Query, description = "Which; may stand many times. All of them where nothing is said.",
            example = json!(["0-17"])),
        ("cause" = Option<String>, Query, description = "Only those of a group.", example = "exhausted-503"),
        ("reason" = Option<String>, Query, description = "Only those with this reason.", example = "exhausted"),
        ("status" = Option<u16>, Query, description = "Only those whose last answer had this status.", example = 503),
        ("since" = Option<String>, Query, description = "Only those from this time on, in RFC 3339."),
    ),
    responses((status = 200, description = "They are gone.", body = Dropped), DropRefusals))]
pub(super) async fn drop_some(
    State(api): State<Shared>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let known = [&["id"], &CHOOSING[..]].concat();
    let query = Query::parse(query.as_deref(), &known)?;
    let mut selection = chosen(&query)?;
    let ids = query.all("id").map(id).collect::<Result<std::collections::HashSet<_>, _>>()?;
    selection.ids = (!ids.is_empty()).then_some(ids);
    let Whole { value, missing } = api.pubsub.drop_dead_letters(&ByteString::from(name), &selection).await?;
    Ok(Json(Dropped { dropped: value, missing_slots: missing }).into_response())
}
