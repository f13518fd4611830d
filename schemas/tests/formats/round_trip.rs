//! What an event must be after it went through a format: the same, but for what the format cannot say.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tidegate_schemas::http::{self, Message, Mode};
use tidegate_schemas::{Data, Event, Format, Limits, MediaType, Timestamp, Value, compact, json, protobuf};

/// Sends an event through every format and compares. The first difference is the error.
pub(crate) fn check_every_format(event: &Event) -> Result<(), String> {
    let limits = Limits::default();
    let same = |format: &str, found: &Event, expected: &Event| match found == expected {
        true => Ok(()),
        false => Err(format!("{format} changes the event\n  found {found:?}\n  expected {expected:?}")),
    };

    let mut encoded = BytesMut::new();
    compact::encode(event, &mut encoded);
    if encoded.len() != compact::encoded_len(event) {
        return Err(format!("encoded_len says {} for {} bytes", compact::encoded_len(event), encoded.len()));
    }
    same("compact", &compact::decode(encoded.freeze()).map_err(|error| error.to_string())?, event)?;

    let in_json = as_json_carries(event);
    let document = json::to_bytes(event);
    serde_json::from_slice::<serde::de::IgnoredAny>(&document).map_err(|error| format!("written JSON: {error}"))?;
    same("json", &json::read(document, &limits).map_err(|error| error.to_string())?, &in_json)?;

    let mut line = Vec::new();
    json::write_line(event, &mut line);
    if line.contains(&b'\n') || line.contains(&b'\r') {
        return Err("write_line breaks its line".to_owned());
    }
    json::read(Bytes::from(line), &limits).map_err(|error| format!("line: {error}"))?;

    let (headers, body) = http::write_batch([event, event]);
    match http::read(&headers, body, &limits).map_err(|error| error.to_string())? {
        Message::Batch(events) if events.len() == 2 => {
            same("batch", &events[0], &in_json)?;
            same("batch", &events[1], &in_json)?;
        }
        other => return Err(format!("a batch of two is read as {other:?}")),
    }

    let (headers, body) = http::write_structured(event);
    let Message::Event(structured) = http::read(&headers, body, &limits).map_err(|error| error.to_string())? else {
        return Err("a structured event is read as something else".to_owned());
    };
    same("structured", &structured, &in_json)?;

    let in_protobuf = as_protobuf_carries(event);
    let document = Format::Protobuf.write(event);
    same("protobuf", &protobuf::read(document, &limits).map_err(|error| error.to_string())?, &in_protobuf)?;
    let (headers, body) = http::write_batch_as(Format::Protobuf, [event, event]);
    match http::read(&headers, body, &limits).map_err(|error| error.to_string())? {
        Message::Batch(events) if events.len() == 2 => {
            same("protobuf batch", &events[0], &in_protobuf)?;
            same("protobuf batch", &events[1], &in_protobuf)?;
        }
        other => return Err(format!("a protobuf batch of two is read as {other:?}")),
    }
    // By way of protobuf and without it, the JSON form says the same, but for what the table of the payload's kinds says.
    let through = json::read(json::to_bytes(&in_protobuf), &limits).map_err(|error| error.to_string())?;
    if through.data().as_bytes() != in_json.data().as_bytes() && json_says_the_same(&in_protobuf, event) {
        return Err(format!("JSON says another payload after protobuf\n  found {through:?}\n  expected {in_json:?}"));
    }

    let written = http::write(event);
    let expected = if written.mode == Mode::Binary { as_binary_carries(event) } else { in_json };
    let Message::Event(found) =
        http::read(&written.headers, written.body, &limits).map_err(|error| error.to_string())?
    else {
        return Err("a binary event is read as something else".to_owned());
    };
    same("binary", &found, &expected)
}

/// Whether the payload kept its kind, which is what decides how a JSON document carries it.
fn json_says_the_same(one: &Event, other: &Event) -> bool {
    std::mem::discriminant(one.data()) == std::mem::discriminant(other.data())
}

/// Protobuf has every type, but times keep their instant only, and text is JSON where the content type says so and it is
/// one (CloudEvents Protobuf format 2.1, 3).
fn as_protobuf_carries(event: &Event) -> Event {
    let utc = |time: &Timestamp| Timestamp::parse(in_utc(time)).unwrap();
    let mut builder = event.clone().into_builder();
    if let Some(time) = event.time() {
        builder = builder.timestamp(utc(time));
    }
    for (name, value) in event.extensions() {
        if let Value::Timestamp(time) = value {
            let value = match in_utc(time) == time.as_str() && !is_in_protobuf(time) {
                true => Value::String(time.text().clone()),
                false => Value::Timestamp(utc(time)),
            };
            builder = builder.extension(name.clone(), value);
        }
    }
    if event.data_content_type().is_none() && matches!(event.data(), Data::Json(_)) {
        builder = builder.data_content_type("application/json");
    }
    let says_json = match (event.data(), media_type(event)) {
        (Data::Json(_), None) => true,
        (_, media_type) => media_type.is_some_and(|media_type| media_type.is_json()),
    };
    let is_json = |bytes: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    let data = match event.data().clone() {
        Data::Json(text) if !says_json => Data::Text(ByteString::try_from(text).unwrap()),
        Data::Text(text) if says_json && is_json(text.as_bytes()) => Data::Json(text.into_bytes()),
        other => other,
    };
    builder.data(data).build().unwrap()
}

/// Whether `google.protobuf.Timestamp` has a form for it: the years 1 to 9999.
fn is_in_protobuf(time: &Timestamp) -> bool {
    (-62_135_596_800_000_000_000..253_402_300_800_000_000_000).contains(&time.unix_nanoseconds())
}

/// The instant in UTC, as another library writes it; the text itself where protobuf has no form for it.
fn in_utc(time: &Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(time.unix_nanoseconds()) {
        Ok(instant) if is_in_protobuf(time) => instant.to_string(),
        // That library ends a day before protobuf does.
        Err(_) if is_in_protobuf(time) => {
            let nanoseconds = time.unix_nanoseconds() - DAY_NANOSECONDS;
            let before = jiff::Timestamp::from_nanosecond(nanoseconds).unwrap().to_string();
            before.replacen("9999-12-30", "9999-12-31", 1)
        }
        _ => time.as_str().to_owned(),
    }
}

const DAY_NANOSECONDS: i128 = 24 * 60 * 60 * 1_000_000_000;

/// JSON knows Boolean, Integer and String, and one kind of payload for a content type (CloudEvents JSON format 2.2, 3.1).
fn as_json_carries(event: &Event) -> Event {
    let allows_json = media_type(event).is_none_or(|media_type| media_type.is_json());
    let data = match event.data().clone() {
        Data::Json(json) if allows_json => Data::Json(json.slice_ref(json.trim_ascii())),
        Data::Json(json) => Data::Text(ByteString::try_from(json).unwrap()),
        Data::Text(text) if allows_json => Data::Binary(text.into_bytes()),
        other => other,
    };
    let mut builder = event.clone().into_builder().data(data);
    for (name, value) in event.extensions() {
        if !matches!(value, Value::Boolean(_) | Value::Integer(_)) {
            builder = builder.extension(name.clone(), Value::String(value.canonical().into_owned().into()));
        }
    }
    builder.build().unwrap()
}

/// Headers are text, and the body's kind is what the content type says (CloudEvents HTTP binding 3.1).
fn as_binary_carries(event: &Event) -> Event {
    let bytes = event.data().to_bytes();
    let mut builder = event.clone().into_builder();
    if event.data_content_type().is_none() && matches!(event.data(), Data::Json(_)) {
        builder = builder.data_content_type("application/json");
    }
    for (name, value) in event.extensions() {
        builder = builder.extension(name.clone(), Value::String(value.canonical().into_owned().into()));
    }
    let says_json = match (event.data(), media_type(event)) {
        (Data::Json(_), None) => true,
        (_, media_type) => media_type.is_some_and(|media_type| media_type.is_json()),
    };
    let says_text = media_type(event).is_some_and(|media_type| media_type.is_text());
    let data = if bytes.is_empty() {
        Data::None
    } else if says_json && serde_json::from_slice::<&serde_json::value::RawValue>(&bytes).is_ok() {
        Data::Json(bytes)
    } else if !says_json
        && says_text
        && let Ok(text) = ByteString::try_from(bytes.clone())
    {
        Data::Text(text)
    } else {
        Data::Binary(bytes)
    };
    builder.data(data).build().unwrap()
}

fn media_type(event: &Event) -> Option<MediaType<'_>> {
    event.data_content_type().map(|text| MediaType::parse(text).unwrap())
}
