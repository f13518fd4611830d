//! `GET /passports`: what became of an event.

use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use tidegate_backbone::consume::{
    Cause, Coverage, Ending, Fate, Letter, Outcome, Passport, Passports, Place, Standing, State as Where,
};
use tidegate_routing::filter::Explanation;
use tidegate_schemas::{Event, json as format};
use utoipa::ToSchema;

use super::openapi::{READ, refusals, schemas};
use super::query::Query;
use super::{Shared, time};
use crate::edge::problem::{Code, Problem};

/// What became of the events of one id and source.
#[derive(Serialize, ToSchema)]
#[schema(as = Passport)]
struct Document {
    id: String,
    source: String,
    places: Vec<PlaceDocument>,
    searched: Searched,
}

/// How far the answer goes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Searched {
    /// Events that were appended before are not looked for.
    back_to: String,
    /// Whether everything since then was searched.
    complete: bool,
    /// Whether there is more than is told.
    more: bool,
    /// Slots whose owner did not answer in time, or that have none: their partitions are not in this answer. Missing where
    /// all answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_slots: Vec<u32>,
}

/// An event in a topic.
#[derive(Serialize, ToSchema)]
#[schema(as = PassportPlace)]
#[serde(rename_all = "camelCase")]
struct PlaceDocument {
    topic: String,
    partition: u32,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    appended_at: Option<String>,
    /// It is not in its topic any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    trimmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Trace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schemas::CloudEvent>)]
    event: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<Duplicate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::cause)]
    dead_letter_of: Option<Cause>,
    subscriptions: Vec<FateDocument>,
}

/// The trace that the event belongs to, as the event names it.
#[derive(Serialize, ToSchema)]
#[schema(as = EventTrace)]
struct Trace {
    traceparent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
}

/// The event was dropped, because one of the same id and source came shortly before.
#[derive(Serialize, ToSchema)]
struct Duplicate {
    /// Where that one stands in the same partition, where it is still known.
    of: Option<u64>,
}

/// What one subscription made of the event.
#[derive(Serialize, ToSchema)]
#[schema(as = PassportFate)]
#[serde(rename_all = "camelCase")]
struct FateDocument {
    subscription: String,
    /// Whether its filters pass, or something was attempted; unknown where the event is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<bool>,
    #[serde(flatten)]
    state: StateDocument,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Hold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sink: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    /// The subscription was changed then, after the event came: another filter may have judged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_after: Option<String>,
    attempts: Vec<AttemptDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dead_letters: Vec<LetterDocument>,
}

/// Where the event is, with what belongs to that.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = PassportState)]
#[serde(rename_all = "camelCase")]
struct StateDocument {
    /// `not-yet-subscribed`, `filtered`, `duplicate`, `behind`, `queued`, `in-flight`, `waiting`, `key-waits`, `delivered`,
    /// `dead-lettered`, `dropped`, `trimmed`, `ended` or `unknown`.
    state: &'static str,
    /// `delivered`: when.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// `in-flight` and `waiting`: which attempt it is, or comes next.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// `waiting` and `key-waits`: not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    /// `key-waits`: where the event of the same key stands that is waited for. `behind`: what is read next.
    /// `not-yet-subscribed`: where the subscription began.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// `filtered`: which predicates did not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schemas::explanation)]
    explanation: Option<Explanation>,
}

/// What keeps the subscription from delivering.
#[derive(Serialize, ToSchema)]
#[schema(as = PassportHold)]
struct Hold {
    /// As in a subscription's status.
    standing: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// One attempt.
#[derive(Serialize, ToSchema)]
#[schema(as = PassportAttempt)]
struct AttemptDocument {
    attempt: u32,
    /// When it ended.
    at: String,
    took: String,
    #[schema(schema_with = schemas::ending)]
    ending: Ending,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// A dead letter of the event.
#[derive(Serialize, ToSchema)]
#[schema(as = PassportLetter)]
struct LetterDocument {
    id: String,
    topic: String,
    at: String,
    #[schema(schema_with = schemas::cause)]
    cause: Cause,
    /// It was redriven or dropped.
    handled: bool,
    redrives: Vec<AttemptDocument>,
}

refusals! {
    Refusals: READ, &[Code::InvalidArgument, Code::EventNotFound, Code::NotFound, Code::PositionLost];
}

/// Show what became of an event
///
/// For each place where an event of that id stands: what each subscription that reads there made of it, every attempt, and
/// where it is now. Attempts are what happened; filters are judged by the subscription as it is now. Answers go back seven
/// days. The attempts of the last 250 ms before a gateway was killed are not known.
#[utoipa::path(get, path = "/passports", operation_id = "showPassports", tag = "Events",
    params(
        ("id" = String, Query, description = "The event's id.", example = "A-1"),
        ("source" = Option<String>, Query, description = "The event's source; every source that has such an id where \
            nothing is said.", example = "/shop"),
        ("data" = Option<bool>, Query, description = "Whether the event is shown with its data."),
    ),
    responses((status = 200, description = "One passport for each source.", body = Vec<Document>), Refusals))]
pub(super) async fn show(State(api): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["id", "source", "data"])?;
    let refuse = |text: &str| Problem::new(Code::InvalidArgument, text);
    let id = query.one("id")?.filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| refuse("Name the event: ?id=… and, to be exact, &source=…."))?;
    let source = query.one("source")?;
    let with_data = match query.one("data")? {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(refuse("data is true or false.")),
    };
    let Passports { passports, coverage } = api.pubsub.passports(id, source).await?;
    if passports.is_empty() {
        return Err(not_found(id, source, &coverage));
    }
    let documents = passports.into_iter().map(|passport| document(passport, &coverage, with_data));
    Ok(Json(documents.collect::<Vec<_>>()).into_response())
}

fn not_found(id: &str, source: Option<&str>, coverage: &Coverage) -> Problem {
    let of_source = source.map(|source| format!(" and source {source:?}")).unwrap_or_default();
    let back_to = time::text(coverage.searched_back_to);
    let searched = if coverage.complete {
        format!("Every topic was searched back to {back_to}.")
    } else if !coverage.missing.is_empty() {
        format!(
            "Topics were searched back to {back_to}, but for partitions of the slots {:?}, whose owner did not answer. Ask \
             again in a while.",
            coverage.missing
        )
    } else {
        format!(
            "Topics were searched back to {back_to}, but not all that they hold: the index is being read anew, or a part \
             of it is damaged, which the gateway's log tells. Ask again in a while."
        )
    };
    Problem::new(Code::EventNotFound, format!("There is no event of id {id:?}{of_source}. {searched}"))
}

fn document(passport: Passport, coverage: &Coverage, with_data: bool) -> Document {
    Document {
        id: passport.id.to_string(),
        source: passport.source.to_string(),
        places: passport.places.into_iter().map(|place| place_document(place, with_data)).collect(),
        searched: Searched {
            back_to: time::text(coverage.searched_back_to),
            complete: coverage.complete,
            more: coverage.more,
            missing_slots: coverage.missing.clone(),
        },
    }
}

fn place_document(place: Place, with_data: bool) -> PlaceDocument {
    let event = place.event.as_deref();
    let attribute = |name: &str| event.and_then(|event| event.attribute(name)).map(|text| text.to_string());
    PlaceDocument {
        topic: place.topic.to_string(),
        partition: place.partition,
        offset: place.position.0,
        appended_at: place.appended_at.map(time::text),
        trimmed: place.event.is_none(),
        trace: attribute("traceparent").map(|traceparent| Trace { traceparent, tracestate: attribute("tracestate") }),
        event: event.map(|event| attributes(event, with_data)),
        duplicate: place.duplicate.then(|| Duplicate { of: place.duplicate_of.map(|position| position.0) }),
        dead_letter_of: place.dead_letter,
        subscriptions: place.fates.into_iter().map(fate_document).collect(),
    }
}

/// The event in the JSON format, without its data unless that is wanted.
fn attributes(event: &Event, with_data: bool) -> Value {
    let mut text = Vec::new();
    format::write(event, &mut text);
    let mut value: Value = serde_json::from_slice(&text).unwrap_or_default();
    if let Some(members) = value.as_object_mut().filter(|_| !with_data) {
        members.remove("data");
        members.remove("data_base64");
    }
    value
}

fn fate_document(fate: Fate) -> FateDocument {
    let matched = match fate.state {
        Where::Filtered(_) => Some(false),
        Where::NotYetSubscribed { .. } | Where::Duplicate | Where::Trimmed => None,
        _ => Some(true),
    };
    FateDocument {
        subscription: fate.subscription.to_string(),
        matched,
        state: state_document(fate.state),
        hold: fate.hold.map(hold),
        sink: fate.sink,
        created_at: fate.created_at.map(time::text),
        changed_after: fate.changed_after.map(time::text),
        attempts: fate.attempts.into_iter().map(attempt_document).collect(),
        dead_letters: fate.letters.into_iter().map(letter_document).collect(),
    }
}

fn state_document(state: Where) -> StateDocument {
    let named = |state| StateDocument { state, ..StateDocument::default() };
    match state {
        Where::NotYetSubscribed { begins_at } => {
            StateDocument { offset: Some(begins_at.0), ..named("not-yet-subscribed") }
        }
        Where::Filtered(explanation) => StateDocument { explanation: Some(explanation), ..named("filtered") },
        Where::Duplicate => named("duplicate"),
        Where::Behind { read } => StateDocument { offset: Some(read.0), ..named("behind") },
        Where::Queued => named("queued"),
        Where::InFlight { attempt } => StateDocument { attempt: Some(attempt), ..named("in-flight") },
        Where::Waiting { attempt, due } => {
            StateDocument { attempt: Some(attempt), due: Some(time::text(due)), ..named("waiting") }
        }
        Where::KeyWaits { head, due } => {
            StateDocument { offset: Some(head.0), due: Some(time::text(due)), ..named("key-waits") }
        }
        Where::Delivered { at } => StateDocument { at: Some(time::text(at)), ..named("delivered") },
        Where::DeadLettered => named("dead-lettered"),
        Where::Dropped => named("dropped"),
        Where::Trimmed => named("trimmed"),
        Where::Ended => named("ended"),
        Where::Unknown => named("unknown"),
    }
}

fn hold(standing: Standing) -> Hold {
    let (standing, reason) = super::subscriptions::standing(Some(&standing));
    Hold { standing, reason }
}

fn attempt_document(outcome: Outcome) -> AttemptDocument {
    AttemptDocument {
        attempt: outcome.attempt,
        at: time::text(outcome.at),
        took: tidegate_resources::format_duration(Duration::from_millis(outcome.took)),
        ending: outcome.ending,
        status: outcome.status,
        detail: outcome.detail,
    }
}

fn letter_document(letter: Letter) -> LetterDocument {
    LetterDocument {
        id: letter.id.to_string(),
        topic: letter.topic.to_string(),
        at: time::text(letter.at),
        cause: letter.cause,
        handled: letter.handled,
        redrives: letter.redrives.into_iter().map(attempt_document).collect(),
    }
}
