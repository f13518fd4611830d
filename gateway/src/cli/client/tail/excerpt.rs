//! An event in one line for people.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tidegate_schemas::MediaType;

use super::super::console::{Console, Style};
use super::super::{json, text};

/// What is shown of a payload.
const DATA_CHARACTERS: usize = 160;
/// What is shown of an attribute.
const ATTRIBUTE_CHARACTERS: usize = 200;

/// `TIME TYPE SOURCE ID key=KEY DATA` of a structured event.
pub(super) fn line(event: &str, console: &Console) -> String {
    let Some(members) = json::members(event) else {
        return text::excerpt(event, DATA_CHARACTERS);
    };
    let attribute = |name: &str| string(&members, name).map(|value| text::excerpt(&value, ATTRIBUTE_CHARACTERS));
    let or_dash = |name: &str| attribute(name).unwrap_or_else(|| "-".to_owned());
    let mut parts = vec![
        console.styled(Style::Faint, &or_dash("time")),
        console.styled(Style::Strong, &or_dash("type")),
        or_dash("source"),
        or_dash("id"),
    ];
    parts.extend(attribute("partitionkey").map(|key| format!("key={key}")));
    parts.extend(data(&members));
    parts.join(" ")
}

fn data(members: &BTreeMap<Cow<'_, str>, &RawValue>) -> Option<String> {
    if let Some(base64) = string(members, "data_base64") {
        let bytes = base64.trim_end_matches('=').len() * 3 / 4;
        return Some(format!("<{}>", text::counted(bytes as u64, "byte")));
    }
    let written = json::one_line(members.get("data")?.get());
    let is_json = string(members, "datacontenttype")
        .is_none_or(|content_type| MediaType::parse(&content_type).is_some_and(|media_type| media_type.is_json()));
    match string(members, "data").filter(|_| !is_json) {
        Some(decoded) => Some(text::excerpt(&decoded, DATA_CHARACTERS)),
        None => Some(text::excerpt(&written, DATA_CHARACTERS)),
    }
}

fn string(members: &BTreeMap<Cow<'_, str>, &RawValue>, name: &str) -> Option<String> {
    serde_json::from_str(members.get(name)?.get()).ok()
}
