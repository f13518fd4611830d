//! Events as their makers print them: nothing of them may be lost.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use tidegate_schemas::{Event, Limits, MediaType, json};

use crate::round_trip::check_every_format;
use crate::tally::{Tally, testdata};

fn check_folder(folder: &'static str, check: impl Fn(&[u8]) -> Result<(), String>) {
    let Some(path) = testdata(folder) else { return };
    if !path.is_dir() {
        println!("{folder}: not among the test data here");
        return;
    }
    let mut tally = Tally::new(folder);
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let document = std::fs::read(&path).unwrap();
            tally.decided(path.file_name().unwrap().to_str().unwrap(), check(&document));
        }
    }
    tally.finish();
}

#[test]
fn valid_events_keep_everything() {
    check_folder("events/valid", |document| {
        let event =
            json::read(Bytes::copy_from_slice(document), &Limits::default()).map_err(|error| error.to_string())?;
        check_nothing_lost(document, &event)?;
        check_every_format(&event)
    });
}

#[test]
fn rejected_events_stay_rejected() {
    check_folder("events/rejected_real", |document| {
        // A file of these is an event, or a record that holds one with the reason.
        let whole: Json = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        let event = whole.get("event").unwrap_or(&whole);
        match json::read(Bytes::from(event.to_string()), &Limits::default()) {
            Err(_) => Ok(()),
            Ok(event) => Err(format!("was taken: {event:?}")),
        }
    });
}

/// Compares with the members of the document as another reader sees them.
fn check_nothing_lost(document: &[u8], event: &Event) -> Result<(), String> {
    let members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(document).map_err(|error| error.to_string())?;
    let mut attributes = 0;
    for (name, raw) in &members {
        let value: Json = serde_json::from_str(raw.get()).unwrap();
        let kept = match name.as_str() {
            "data" => {
                let is_json = event.data_content_type().is_none_or(|text| MediaType::parse(text).unwrap().is_json());
                let expected = if is_json { raw.get() } else { value.as_str().unwrap() };
                event.data().as_bytes() == expected.as_bytes()
            }
            "data_base64" => event.data().as_bytes() == STANDARD.decode(value.as_str().unwrap()).unwrap(),
            name => {
                attributes += usize::from(!value.is_null());
                let expected = match &value {
                    Json::Null => None,
                    Json::String(text) => Some(text.clone()),
                    other => Some(other.to_string()),
                };
                event.attribute(name).map(|text| text.into_owned()) == expected
            }
        };
        if !kept {
            return Err(format!("{name} is {raw} and became another"));
        }
    }
    let is_complete = attributes == event.attributes_count();
    if is_complete { Ok(()) } else { Err(format!("{attributes} attributes became {}", event.attributes_count())) }
}
