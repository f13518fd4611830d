//! `deliver-at` and `delay` of a publish, and what an event itself says of its times.

use std::time::Duration;

use bytestring::ByteString;
use http::HeaderMap;
use tidegate_routing::schedule::{self, DELIVER_AT};
use tidegate_schemas::{Event, Fault, Value};

use super::change::sentence;
use super::query::Query;
use super::{Api, time};
use crate::edge::problem::{Code, Problem};

/// The parameters of a query that say when to deliver.
pub(super) const PARAMETERS: [&str; 2] = ["deliver-at", "delay"];
const HEADERS: [&str; 2] = ["tidegate-deliver-at", "tidegate-delay"];

/// When the events of a request are to be delivered, in milliseconds since 1970, where the query or a header says so.
pub(super) fn wanted(api: &Api, headers: &HeaderMap, query: &Query<'_>) -> Result<Option<u64>, Problem> {
    let refuse = |detail: String| Problem::new(Code::InvalidArgument, detail);
    let mut found: Option<(&str, String)> = None;
    for (parameter, header) in PARAMETERS.into_iter().zip(HEADERS) {
        let of_query = query.one(parameter)?.map(|value| (parameter, value.to_owned()));
        let of_header = headers
            .get_all(header)
            .iter()
            .map(|value| (parameter, String::from_utf8_lossy(value.as_bytes()).into_owned()));
        for value in of_query.into_iter().chain(of_header) {
            if found.replace(value).is_some() {
                let names = [PARAMETERS, HEADERS].concat().join(", ");
                return Err(refuse(format!("The request says more than once when to deliver; give one of {names}.")));
            }
        }
    }
    let Some((parameter, text)) = found else { return Ok(None) };
    if parameter == "deliver-at" {
        let at = time::parse(&text);
        let detail = || format!("{text:?} is no time to deliver at; write it as 2026-01-31T12:00:00Z.");
        return at.map(Some).ok_or_else(|| refuse(detail()));
    }
    let delay: Duration = tidegate_resources::parse_duration(&text)
        .map_err(|reason| refuse(sentence(&format!("the delay {text:?} {reason}"))))?;
    let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    Ok(Some(api.environment.clock.unix_milliseconds().saturating_add(delay)))
}

/// The event with the time at which it is to be delivered, where the request says one; its own times are checked.
pub(super) fn apply(api: &Api, event: Event, wanted: Option<u64>) -> Result<Event, Vec<Fault>> {
    let event = match wanted {
        Some(at) => {
            let at = Value::String(time::text(at).into());
            let builder = event.into_builder().extension(ByteString::from_static(DELIVER_AT), at);
            builder.build().map_err(|faults| faults.0)?
        }
        None => event,
    };
    match schedule::check(&event, api.environment.clock.unix_milliseconds()) {
        Ok(()) => Ok(event),
        Err((attribute, reason)) => Err(vec![Fault { attribute: attribute.into(), reason }]),
    }
}
