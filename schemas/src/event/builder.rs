use bytestring::ByteString;

use super::{Data, Event, Faults, Timestamp, Value};

/// Collects attributes and payload; [`EventBuilder::build`] checks them all and reports every fault at once.
#[derive(Clone, Debug)]
pub struct EventBuilder {
    event: Event,
    faults: Faults,
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
                extensions: std::collections::BTreeMap::new(),
                data: Data::None,
            },
            faults: Faults::default(),
        }
    }

    pub(super) fn from_event(event: Event) -> Self {
        Self { event, faults: Faults::default() }
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
        self
    }

    /// Checks every rule of CloudEvents 1.0 and gives the event, or all that is wrong with it.
    pub fn build(self) -> Result<Event, Faults> {
        if self.faults.is_empty() { Ok(self.event) } else { Err(self.faults) }
    }
}
