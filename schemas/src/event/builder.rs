use bytestring::ByteString;

use super::{Data, Event, Extensions, Faults, Timestamp, Value, rules};
use crate::json;
use crate::limits::Limits;

/// Collects attributes and payload; [`EventBuilder::build`] checks them all and reports every fault at once.
#[derive(Clone, Debug)]
pub struct EventBuilder {
    event: Event,
    faults: Faults,
    /// Set for a payload that did not come out of an event that was valid.
    data_is_new: bool,
}

impl EventBuilder {
    pub(super) fn new(id: impl Into<ByteString>, source: impl Into<ByteString>, kind: impl Into<ByteString>) -> Self {
        Self {
            event: Event {
                id: id.into(),
                source: source.into(),
                kind: kind.into(),
                subject: None,
                time: None,
                data_content_type: None,
                data_schema: None,
                extensions: Extensions::default(),
                data: Data::None,
            },
            faults: Faults::default(),
            data_is_new: false,
        }
    }

    pub(super) fn from_event(event: Event) -> Self {
        Self { event, faults: Faults::default(), data_is_new: false }
    }

    /// Sets `subject`.
    pub fn subject(mut self, subject: impl Into<ByteString>) -> Self {
        self.event.subject = Some(subject.into());
        self
    }

    /// Sets `time` from RFC 3339 text.
    pub fn time(mut self, text: impl Into<ByteString>) -> Self {
        match Timestamp::parse(text) {
            Ok(time) => self.event.time = Some(time),
            Err(reason) => self.faults.push("time", reason),
        }
        self
    }

    /// Sets `time` to one that has been read before.
    pub fn timestamp(mut self, time: Timestamp) -> Self {
        self.event.time = Some(time);
        self
    }

    /// Sets `datacontenttype`.
    pub fn data_content_type(mut self, media_type: impl Into<ByteString>) -> Self {
        self.event.data_content_type = Some(media_type.into());
        self
    }

    /// Sets `dataschema`.
    pub fn data_schema(mut self, uri: impl Into<ByteString>) -> Self {
        self.event.data_schema = Some(uri.into());
        self
    }

    /// Sets an extension attribute.
    pub fn extension(mut self, name: impl Into<ByteString>, value: Value) -> Self {
        self.event.extensions.insert(name.into(), value);
        self
    }

    /// Removes an extension attribute.
    pub fn without_extension(mut self, name: &str) -> Self {
        self.event.extensions.remove(name);
        self
    }

    /// Sets the payload.
    pub fn data(mut self, data: Data) -> Self {
        self.event.data = data;
        self.data_is_new = true;
        self
    }

    /// Checks every rule of CloudEvents 1.0 and the limits of [`crate::limits`], and gives the event, or all that is wrong
    /// with it.
    pub fn build(self) -> Result<Event, Faults> {
        self.build_within(&Limits::default())
    }

    /// As [`EventBuilder::build`], with other limits than the defaults.
    pub fn build_within(self, limits: &Limits) -> Result<Event, Faults> {
        let Self { event, mut faults, data_is_new } = self;
        rules::check_attributes(&event, &mut faults);
        if let Data::Json(text) = &event.data
            && data_is_new
            && let Err(reason) = json::check_text(text, limits.json_depth)
        {
            faults.push("data", reason);
        }
        if let Err(too_large) = rules::check_sizes(&event, limits) {
            faults.push("", too_large.to_string());
        }
        if faults.is_empty() { Ok(event) } else { Err(faults) }
    }
}
