//! `From` and `TryFrom` between our event and that of the Rust SDK of CloudEvents, for people who embed the crate.
//!
//! The SDK's event says less than ours. To it, and so back again:
//!
//! - extensions become strings in their canonical form, except Boolean and Integer;
//! - `time` becomes an instant in UTC; its text, offset and precision are lost, and so are leap seconds;
//! - `dataschema` becomes an URL as browsers write it (`HTTP://A` is `http://a/`), and is left out where they do not take it;
//! - a payload of kind JSON becomes a tree: blanks, the spelling of numbers and members that stand twice are lost. One that
//!   the SDK cannot hold, such as a number beyond all floating point, becomes binary and keeps its bytes.
//!
//! From it:
//!
//! - everything is checked, because the SDK checks little: [`Faults`] names what breaks the rules of CloudEvents or our limits;
//! - an Integer beyond 32 bits is a fault;
//! - an event of version 0.3 is taken as one of 1.0, in the way that the SDK converts it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cloudevents::event::{ExtensionValue, TryIntoUrl};
use cloudevents::{AttributesReader, AttributesWriter, EventBuilder as _, EventBuilderV10};

use crate::event::{Data, Event, Faults, Timestamp, Value};

impl From<Event> for cloudevents::Event {
    fn from(event: Event) -> Self {
        let mut out = EventBuilderV10::new()
            .id(&*event.id)
            .source(&*event.source)
            .ty(&*event.kind)
            .build()
            .expect("the attributes that the SDK requires are there and not empty");
        out.set_subject(event.subject.as_deref());
        out.set_time(event.time.as_ref().map(system_time));
        out.set_datacontenttype(event.data_content_type.as_deref());
        out.set_dataschema(event.data_schema.as_deref().and_then(|uri| uri.into_url().ok()));
        for (name, value) in event.extensions.iter() {
            let value = match value {
                Value::Boolean(value) => ExtensionValue::Boolean(*value),
                Value::Integer(value) => ExtensionValue::Integer(i64::from(*value)),
                other => ExtensionValue::String(other.canonical().into_owned()),
            };
            out.set_extension(name, value);
        }
        match event.data {
            Data::None => {}
            Data::Json(text) => match serde_json::from_slice::<serde_json::Value>(&text) {
                Ok(tree) => drop(out.set_data_unchecked(tree)),
                Err(_) => drop(out.set_data_unchecked(text.to_vec())),
            },
            Data::Text(text) => drop(out.set_data_unchecked(String::from(text))),
            Data::Binary(bytes) => drop(out.set_data_unchecked(bytes.to_vec())),
        }
        out
    }
}

impl TryFrom<cloudevents::Event> for Event {
    type Error = Faults;

    fn try_from(event: cloudevents::Event) -> Result<Self, Faults> {
        // Taking the builder's way makes one of version 1.0 out of every event.
        let event = EventBuilderV10::from(event).build().map_err(|error| {
            let mut faults = Faults::default();
            faults.push("", error.to_string());
            faults
        })?;
        let mut builder = Self::builder(event.id(), event.source().as_str(), event.ty());
        if let Some(subject) = event.subject() {
            builder = builder.subject(subject);
        }
        if let Some(time) = event.time() {
            builder = builder.time(time.to_rfc3339());
        }
        if let Some(media_type) = event.datacontenttype() {
            builder = builder.data_content_type(media_type);
        }
        if let Some(schema) = event.dataschema() {
            builder = builder.data_schema(schema.as_str());
        }
        let mut faults = Faults::default();
        for (name, value) in event.iter_extensions() {
            match value {
                ExtensionValue::Boolean(value) => builder = builder.extension(name, Value::Boolean(*value)),
                ExtensionValue::String(value) => {
                    builder = builder.extension(name, Value::String(value.as_str().into()));
                }
                ExtensionValue::Integer(value) => match i32::try_from(*value) {
                    Ok(value) => builder = builder.extension(name, Value::Integer(value)),
                    Err(_) => faults.push(name, "is beyond the 32 bits of an Integer; make it a string"),
                },
            }
        }
        builder = match event.data() {
            None => builder,
            Some(cloudevents::Data::Json(tree)) => builder.data(Data::Json(Bytes::from(tree.to_string()))),
            Some(cloudevents::Data::String(text)) => builder.data(Data::Text(text.as_str().into())),
            Some(cloudevents::Data::Binary(bytes)) => builder.data(Data::Binary(Bytes::copy_from_slice(bytes))),
        };
        match builder.build() {
            Ok(event) if faults.is_empty() => Ok(event),
            Ok(_) => Err(faults),
            Err(Faults(others)) => {
                faults.0.extend(others);
                Err(faults)
            }
        }
    }
}

fn system_time(time: &Timestamp) -> SystemTime {
    const SECOND: i128 = 1_000_000_000;
    let whole = |nanoseconds: i128| {
        let seconds = u64::try_from(nanoseconds / SECOND).expect("RFC 3339 ends with the year 9999");
        Duration::new(seconds, (nanoseconds % SECOND) as u32)
    };
    let nanoseconds = time.unix_nanoseconds();
    match nanoseconds < 0 {
        true => SystemTime::UNIX_EPOCH - whole(-nanoseconds),
        false => SystemTime::UNIX_EPOCH + whole(nanoseconds),
    }
}
