//! Events out of arguments and lines.

use bytes::Bytes;
use serde::de::IgnoredAny;
use tidegate_backbone::Environment;
use tidegate_schemas::json::{self as event_json, ReadError};
use tidegate_schemas::{Data, Event, Faults, Limits, MediaType, Value};

use super::super::failure::Failure;
use super::super::{json, text};
use crate::cli::arguments::Publish;

/// Makes events of payloads: the attributes come from the arguments, `id` and `time` from the world.
#[derive(Debug)]
pub(super) struct Template<'a> {
    pub(super) arguments: &'a Publish,
    pub(super) environment: &'a Environment,
}

/// An event that is ready to be sent.
#[derive(Debug)]
pub(super) struct Item {
    /// The line of its file where it begins.
    pub(super) line: u64,
    /// Its id, by which it is known in receipts.
    pub(super) id: String,
    /// The structured event.
    pub(super) json: Bytes,
}

/// What a text that is no event may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payloads {
    /// JSON, unless the arguments name another media type: the file's name promised it.
    Json,
    /// Anything.
    Any,
}

impl Template<'_> {
    /// An event around a payload, or around none.
    pub(super) fn event(&self, payload: Option<&str>) -> Result<Event, Faults> {
        let Publish { kind, source, subject, key, id, content_type, .. } = self.arguments;
        let id = id.clone().unwrap_or_else(|| self.random_id());
        let mut builder = Event::builder(id, source.clone(), kind.clone());
        if let Some(time) = text::time(self.environment.clock.unix_milliseconds()) {
            builder = builder.time(time);
        }
        if let Some(subject) = subject {
            builder = builder.subject(subject.clone());
        }
        if let Some(key) = key {
            builder = builder.extension("partitionkey", Value::String(key.clone().into()));
        }
        if let Some(payload) = payload {
            let declared_json = content_type.as_deref().and_then(MediaType::parse).map(|kind| kind.is_json());
            let (data, fitting) = if declared_json.unwrap_or_else(|| content_type.is_none() && is_json(payload)) {
                (Data::Json(Bytes::copy_from_slice(payload.trim().as_bytes())), "application/json")
            } else {
                (Data::Text(payload.into()), "text/plain")
            };
            builder = builder.data(data).data_content_type(content_type.as_deref().unwrap_or(fitting));
        } else if let Some(content_type) = content_type {
            builder = builder.data_content_type(content_type.clone());
        }
        builder.build()
    }

    /// The event that a text is, or the event around it.
    pub(super) fn item(&self, line: u64, text: &str, payloads: Payloads) -> Result<Item, Failure> {
        if json::members(text).is_some_and(|members| members.contains_key("specversion")) {
            let document = Bytes::copy_from_slice(text.trim().as_bytes());
            let event = event_json::read(document.clone(), &Limits::default()).map_err(unreadable)?;
            return Ok(Item { line, id: event.id().to_string(), json: document });
        }
        // Text that was meant as an event and is not even JSON must not be published as somebody's payload.
        let meant_as_event = text.trim_start().starts_with('{') && text.contains("\"specversion\"");
        let must_be_json = payloads == Payloads::Json && self.arguments.content_type.is_none();
        if (meant_as_event || must_be_json)
            && let Err(error) = serde_json::from_str::<IgnoredAny>(text)
        {
            return Err(Failure::Local(format!("not JSON: {error}")));
        }
        let event = self.event(Some(text)).map_err(invalid)?;
        Ok(Item { line, id: event.id().to_string(), json: event_json::to_bytes(&event) })
    }

    fn random_id(&self) -> String {
        let bits = || self.environment.random.bits();
        format!("{:016x}{:016x}", bits(), bits())
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn invalid(faults: Faults) -> Failure {
    let faults = faults.0.iter().map(ToString::to_string).collect();
    Failure::Invalid { what: "The event is not a valid CloudEvent".to_owned(), faults }
}

fn unreadable(error: ReadError) -> Failure {
    match error {
        ReadError::Malformed(malformed) => {
            Failure::Local(format!("not JSON: {} (column {})", malformed.reason, malformed.column))
        }
        ReadError::Invalid(faults) => invalid(faults),
        ReadError::TooLarge(too_large) => Failure::Local(too_large.to_string()),
    }
}
