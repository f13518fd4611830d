//! `POST /subscriptions/{id}/dead-letters/redrive`: all or some, edited where that mends them, at a rate.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_backbone::consume::{DeadLetter, LetterId, Redrive, Selection, Whole};
use tidegate_schemas::json::{self as format, ReadError};
use tidegate_schemas::limits::{self, Limits};
use tidegate_schemas::{Event, Fault};
use utoipa::ToSchema;

use super::super::body::read_json;
use super::super::change::sentence;
use super::super::openapi::{BODY, WRITE, refusals};
use super::super::{Api, Shared};
use super::{id, refused, selection};
use crate::edge::problem::{Code, Problem};

/// The ids that a dry run tells at most.
const IDS_TOLD: usize = 1_000;
/// The fastest rate that can be asked for; without one there is no limit but the subscription's own.
const RATE_MAX: f64 = 1_000.0;
/// The slowest: one letter a day.
const RATE_MIN: f64 = 1.0 / 86_400.0;

/// Which dead letters, and how they are sent.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = RedriveSpec, examples(
    json!({"filter": {"cause": "exhausted-503"}, "ratePerSecond": 5}),
    json!({"ids": ["0-17"], "edits": {"0-17": {"data": {"amount": 7}, "subject": null}}})
))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    /// Those; all of them where neither `ids` nor `filter` is there.
    ids: Option<Vec<String>>,
    filter: Option<Filter>,
    /// Changes nothing, and tells which would be sent.
    #[serde(default)]
    dry_run: bool,
    /// The most that go out in a second; may be less than one.
    rate_per_second: Option<f64>,
    /// For a letter's id, members of its event's JSON format that take the place of those it has; `null` removes one. `id`
    /// and `source` stay, because they are the event's identity. The stored event is not changed.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    edits: HashMap<String, BTreeMap<String, Box<RawValue>>>,
}

/// Which dead letters: those that fit everything here.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = DeadLetterFilter)]
#[serde(deny_unknown_fields)]
struct Filter {
    /// Of that group.
    #[schema(examples("exhausted-503"))]
    cause: Option<String>,
    /// With that reason.
    reason: Option<String>,
    /// Whose last answer had that status.
    status: Option<u16>,
    /// From that time on, in RFC 3339.
    since: Option<String>,
}

/// What is on its way.
#[derive(Serialize, ToSchema)]
#[schema(as = Redriven)]
#[serde(rename_all = "camelCase")]
struct Document {
    /// How many are sent again, or would be.
    redriven: usize,
    /// Whether it was only asked for.
    dry_run: bool,
    /// Whether there are more than one request takes up; ask again for those, once these are on their way.
    more: bool,
    /// Of a dry run: which, the first 1,000 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<String>>,
    /// Slots whose owner did not answer in time, or that have none: their partitions are not in this answer. Missing where
    /// all answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_slots: Vec<u32>,
}

refusals! {
    Refusals: BODY, WRITE, &[
        Code::InvalidArgument, Code::InvalidEvent, Code::SubscriptionNotFound, Code::NotFound, Code::PositionLost,
        Code::EventTooLarge,
    ];
}

/// Send dead letters again
///
/// To the subscription that could not deliver them, and to no other. They leave the list at once and are sent one by one,
/// at the rate that is asked for, also over a restart; `status.redriving` of the subscription says how many are not settled.
/// One that fails again becomes a new dead letter.
#[utoipa::path(post, path = "/subscriptions/{id}/dead-letters/redrive", operation_id = "redriveDeadLetters",
    tag = "Dead letters",
    params(("id" = String, Path, description = "The subscription's id.", example = "large-orders")),
    request_body(content = Option<Wanted>, description = "May be left out, which is all of them."),
    responses(
        (status = 200, description = "They are on their way.", body = Document,
            example = json!({"redriven": 12, "dryRun": false, "more": false})),
        Refusals
    ))]
pub(in crate::edge::native) async fn redrive(
    State(api): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let example = r#"{} for all, {"ids": ["0-17"]} or {"filter": {"reason": "exhausted"}, "ratePerSecond": 5}"#;
    let wanted: Wanted = read_json(request, Code::InvalidArgument, example).await?;
    let name = ByteString::from(name);
    let filter = wanted.filter.unwrap_or_default();
    let mut selection =
        selection(filter.cause.as_deref(), filter.reason.as_deref(), filter.status, filter.since.as_deref())?;
    let edited =
        wanted.edits.iter().map(|(text, edit)| Ok((id(text)?, edit))).collect::<Result<HashMap<_, _>, Problem>>()?;
    if edited.len() > limits::REDRIVE_EDITS {
        return Err(refused(&format!("one request edits at most {} letters", limits::REDRIVE_EDITS)));
    }
    if let Some(ids) = &wanted.ids {
        let ids = ids.iter().map(|text| id(text)).collect::<Result<HashSet<_>, _>>()?;
        if let Some(other) = edited.keys().find(|id| !ids.contains(id)) {
            return Err(refused(&format!("edits names {other}, which is not among ids")));
        }
        selection.ids = Some(ids);
    } else if !edited.is_empty() {
        // Whoever edits some means those, and not all others as they are.
        selection.ids = Some(edited.keys().copied().collect());
    }
    let interval = wanted.rate_per_second.map(interval).transpose()?;
    let edits = edit(&api, &name, &edited).await?;
    let redrive = Redrive { interval, edits, dry: wanted.dry_run };
    let Whole { value: redriven, missing } = api.pubsub.redrive(&name, &selection, &redrive).await?;
    let told = || redriven.ids.iter().take(IDS_TOLD).map(ToString::to_string).collect();
    let document = Document {
        redriven: redriven.ids.len(),
        dry_run: wanted.dry_run,
        more: redriven.more,
        ids: wanted.dry_run.then(told),
        missing_slots: missing,
    };
    Ok(Json(document).into_response())
}

fn interval(rate: f64) -> Result<Duration, Problem> {
    if (RATE_MIN..=RATE_MAX).contains(&rate) {
        return Ok(Duration::from_secs_f64(1.0 / rate));
    }
    Err(refused(&format!("ratePerSecond is a number above 0 and up to {RATE_MAX}, not {rate}")))
}

/// The edited events.
async fn edit(
    api: &Api,
    name: &ByteString,
    edits: &HashMap<LetterId, &BTreeMap<String, Box<RawValue>>>,
) -> Result<HashMap<LetterId, Event>, Problem> {
    if edits.is_empty() {
        return Ok(HashMap::new());
    }
    let ids = edits.keys().copied().collect::<Vec<_>>();
    let letters = api.pubsub.dead_letters(name, &Selection::of(ids), None, edits.len()).await?.value;
    let mut edited = HashMap::new();
    for letter in &letters {
        if let Some(edit) = edits.get(&letter.id) {
            edited.insert(letter.id, apply(letter, edit, &api.limits)?);
        }
    }
    match edits.keys().find(|id| !edited.contains_key(id)) {
        Some(missing) => Err(refused(&format!("there is no dead letter {missing}, or not any more"))),
        None => Ok(edited),
    }
}

/// Puts members of the JSON format in the place of those that an event has. What is not named stays as it was written.
fn apply(letter: &DeadLetter, edit: &BTreeMap<String, Box<RawValue>>, limits: &Limits) -> Result<Event, Problem> {
    let unreadable = || Problem::new(Code::Internal, "An event could not be read as JSON.");
    let mut event = Vec::new();
    format::write(&letter.event, &mut event);
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&event).map_err(|_| unreadable())?;
    for (member, value) in edit {
        if matches!(member.as_str(), "id" | "source" | "specversion") {
            return Err(refused(&format!("the edit of {} names {member}, which stays as it is", letter.id)));
        }
        // Data has two forms, of which an event has one.
        if matches!(member.as_str(), "data" | "data_base64") {
            members.remove("data");
            members.remove("data_base64");
        }
        if value.get() == "null" {
            members.remove(member);
        } else {
            members.insert(member.clone(), value.clone());
        }
    }
    let event = serde_json::to_vec(&members).map_err(|_| unreadable())?;
    format::read(Bytes::from(event), limits).map_err(|error| invalid(letter.id, &error))
}

fn invalid(id: LetterId, error: &ReadError) -> Problem {
    let detail = format!("The edited event of {id} is refused");
    match error {
        ReadError::Invalid(faults) => {
            let faults = faults.0.iter().map(|fault| Fault {
                attribute: format!("{id}.{}", fault.attribute).into(),
                reason: fault.reason.clone(),
            });
            Problem::new(Code::InvalidEvent, format!("{detail}; every fault is listed.")).with_faults(faults)
        }
        ReadError::TooLarge(_) => {
            Problem::new(Code::EventTooLarge, format!("{detail}. {}", sentence(&error.to_string())))
        }
        ReadError::Malformed(_) => {
            Problem::new(Code::InvalidEvent, format!("{detail}. {}", sentence(&error.to_string())))
        }
    }
}
