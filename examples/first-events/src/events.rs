//! The events of this example, and the three ways in which one travels over HTTP.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::Failure;

/// What identifies an event: its `source` and its `id`.
pub(crate) type Identity = (String, String);

/// An event as its JSON document.
pub(crate) type Event = Map<String, Value>;

/// Reads the events of the test data, or else this example's own, in the order of their files; gives the folder too.
pub(crate) fn load() -> Result<(PathBuf, Vec<Event>), Failure> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = example.join("../..");
    let data =
        root.join(std::env::var_os("TIDEGATE_TESTDATA").map_or_else(|| "../shared/testdata".into(), PathBuf::from));
    let theirs = data.join("events/valid");
    let folder = if theirs.is_dir() { theirs } else { example.join("events") }.canonicalize()?;
    let mut paths = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, Failure>>()?;
    paths.sort();
    let read = |path: &PathBuf| {
        serde_json::from_slice(&std::fs::read(path)?).map_err(|error| format!("{}: {error}", path.display()).into())
    };
    let mut events = paths.iter().map(read).collect::<Result<Vec<Event>, Failure>>()?;
    // Examples that makers printed often share an id; a second event of the same identity would be dropped as a repeat.
    let mut known = HashSet::new();
    events.retain(|event| known.insert(identity(event)));
    if events.is_empty() { Err(format!("no events in {}", folder.display()).into()) } else { Ok((folder, events)) }
}

/// A text attribute of an event.
pub(crate) fn text<'a>(event: &'a Event, name: &str) -> &'a str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn identity(event: &Event) -> Identity {
    (text(event, "source").to_owned(), text(event, "id").to_owned())
}

/// The whole event in the body.
pub(crate) fn structured(event: &Event) -> Result<(HeaderMap, Bytes), Failure> {
    Ok((content_type("application/cloudevents+json")?, serde_json::to_vec(event)?.into()))
}

/// Several events in the body.
pub(crate) fn batch(events: &[&Event]) -> Result<(HeaderMap, Bytes), Failure> {
    Ok((content_type("application/cloudevents-batch+json")?, serde_json::to_vec(events)?.into()))
}

/// The attributes as headers, the data as the body.
pub(crate) fn binary(event: &Event) -> Result<(HeaderMap, Bytes), Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in event {
        let name = match name.as_str() {
            "data" | "data_base64" => continue,
            "datacontenttype" => CONTENT_TYPE,
            name => HeaderName::try_from(format!("ce-{name}"))?,
        };
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let value = if name == CONTENT_TYPE { value } else { encode(&value) };
        headers.insert(name, HeaderValue::try_from(value)?);
    }
    let body = data(event)?;
    // Without a media type the data of a JSON document is JSON; in binary mode that has to be said.
    if event.contains_key("data") && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok((headers, body))
}

/// The bytes of the data, as they travel in binary mode.
pub(crate) fn data(event: &Event) -> Result<Bytes, Failure> {
    if event.contains_key("data_base64") {
        return Ok(base64::prelude::BASE64_STANDARD.decode(text(event, "data_base64"))?.into());
    }
    match event.get("data") {
        None => Ok(Bytes::new()),
        Some(Value::String(data)) if !is_json(text(event, "datacontenttype")) => Ok(data.clone().into()),
        Some(data) => Ok(serde_json::to_vec(data)?.into()),
    }
}

/// Whether both are the same data: byte for byte, or the same JSON where it is JSON.
pub(crate) fn same_data(event: &Event, received: &[u8]) -> Result<bool, Failure> {
    let sent = data(event)?;
    if sent == received {
        return Ok(true);
    }
    let json = is_json(text(event, "datacontenttype"));
    Ok(json && serde_json::from_slice::<Value>(&sent)? == serde_json::from_slice::<Value>(received)?)
}

fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty() || essence.ends_with("/json") || essence.ends_with("+json")
}

fn content_type(value: &'static str) -> Result<HeaderMap, Failure> {
    Ok(HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]))
}

/// Percent-encodes what a header cannot hold, as the HTTP binding of CloudEvents says (3.1.3.2).
fn encode(value: &str) -> String {
    let plain = |byte: &u8| (0x21..=0x7e).contains(byte) && !matches!(byte, b'"' | b'%');
    value.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The other way round.
pub(crate) fn decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, behind @ ..] = rest {
        let code = behind.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
