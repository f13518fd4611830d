//! The members of one JSON object on their way to an event.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use bytestring::ByteString;

use super::check_depth;
use crate::batch::Problem;
use crate::event::{Data, Event, Extensions, Faults, Timestamp, Value, rules};
use crate::limits::{Limit, Limits, TooLarge};
use crate::media_type::allows_json;

/// Collects members; a value is the JSON text of it, a slice of the document.
pub(super) struct Draft<'a> {
    document: &'a ByteString,
    limits: &'a Limits,
    attributes: usize,
    faults: Faults,
    /// One bit for each [`Member`] that was there, `null` or not.
    seen: u16,
    texts: [Option<ByteString>; TEXTS],
    extensions: Extensions,
    /// Extensions that were `null`, which may still not stand twice.
    null_extensions: Vec<Cow<'a, str>>,
    data: Option<&'a str>,
    data_base64: Option<ByteString>,
}

/// The members that are no extensions; those before `TEXTS` are attributes of text.
#[derive(Clone, Copy)]
enum Member {
    SpecVersion,
    Id,
    Source,
    Type,
    Subject,
    Time,
    DataContentType,
    DataSchema,
    Data,
    DataBase64,
}

const TEXTS: usize = Member::Data as usize;

impl Member {
    fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "specversion" => Self::SpecVersion,
            "id" => Self::Id,
            "source" => Self::Source,
            "type" => Self::Type,
            "subject" => Self::Subject,
            "time" => Self::Time,
            "datacontenttype" => Self::DataContentType,
            "dataschema" => Self::DataSchema,
            "data" => Self::Data,
            "data_base64" => Self::DataBase64,
            _ => return None,
        })
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(document: &'a ByteString, limits: &'a Limits) -> Self {
        Self {
            document,
            limits,
            attributes: 0,
            faults: Faults::default(),
            seen: 0,
            texts: [const { None }; TEXTS],
            extensions: Extensions::default(),
            null_extensions: Vec::new(),
            data: None,
            data_base64: None,
        }
    }

    /// Takes one member. An error ends the reading, so that a document cannot make more work than an event may have
    /// attributes.
    pub(super) fn member(&mut self, name: Cow<'a, str>, value: &'a str) -> Result<(), TooLarge> {
        let member = Member::of_name(&name);
        if !matches!(member, Some(Member::Data | Member::DataBase64)) {
            self.attributes += 1;
            TooLarge::check(Limit::EventAttributes, self.attributes, self.limits.event_attributes)?;
        }
        if let Some(member) = member {
            if let Err(reason) = self.known(member, value) {
                self.faults.push(rules::shown(&name), reason);
            }
            return Ok(());
        }
        match self.extension(&name, value) {
            Ok(Some(value)) => {
                let name = match name {
                    Cow::Borrowed(name) => self.document.slice_ref(name),
                    Cow::Owned(name) => ByteString::from(name),
                };
                self.extensions.insert(name, value);
            }
            Ok(None) => self.null_extensions.push(name),
            Err(reason) => self.faults.push(rules::shown(&name), reason),
        }
        Ok(())
    }

    /// Checks the event as a whole and gives it.
    pub(super) fn finish(mut self) -> Result<Event, Problem> {
        let spec_version = self.required(Member::SpecVersion, "specversion");
        if !spec_version.is_empty() && spec_version != "1.0" {
            let shown = rules::shown(&spec_version);
            self.faults.push("specversion", format!("is {shown:?}, and only \"1.0\" is known; write it so"));
        }
        let id = self.required(Member::Id, "id");
        let source = self.required(Member::Source, "source");
        let kind = self.required(Member::Type, "type");
        let time = self.texts[Member::Time as usize].take().and_then(|text| match Timestamp::parse(text) {
            Ok(time) => Some(time),
            Err(reason) => {
                self.faults.push("time", reason);
                None
            }
        });
        let data = match self.payload() {
            Ok(data) => data,
            Err((member, reason)) => {
                self.faults.push(member, reason);
                Data::None
            }
        };
        let [_, _, _, _, subject, _, data_content_type, data_schema] = self.texts;
        let extensions = self.extensions;
        let event = Event { id, source, kind, subject, time, data_content_type, data_schema, extensions, data };
        rules::check_attributes(&event, &mut self.faults);
        if !self.faults.is_empty() {
            return Err(Problem::Invalid(self.faults));
        }
        rules::check_sizes(&event, self.limits).map_err(Problem::TooLarge)?;
        Ok(event)
    }

    fn known(&mut self, member: Member, value: &'a str) -> Result<(), String> {
        let bit = 1 << member as u16;
        if self.seen & bit != 0 {
            return Err(DUPLICATE.to_owned());
        }
        self.seen |= bit;
        match member {
            Member::Data => self.data = Some(value),
            Member::DataBase64 => self.data_base64 = self.string(value)?,
            text => self.texts[text as usize] = self.string(value)?,
        }
        Ok(())
    }

    /// The value of an extension, or nothing for `null`.
    fn extension(&self, name: &str, value: &'a str) -> Result<Option<Value>, String> {
        if self.extensions.get(name).is_some() || self.null_extensions.iter().any(|other| other == name) {
            return Err(DUPLICATE.to_owned());
        }
        Ok(Some(match value.as_bytes()[0] {
            b'n' => return Ok(None),
            b'"' => Value::String(self.unquoted(value)?),
            b't' => Value::Boolean(true),
            b'f' => Value::Boolean(false),
            b'{' | b'[' => {
                return Err("is an object or an array, which no attribute can be; move it into the data".to_owned());
            }
            _ => Value::Integer(integer(value)?),
        }))
    }

    fn required(&mut self, member: Member, name: &'static str) -> ByteString {
        let text = self.texts[member as usize].take();
        if let Some(text) = text
            && !text.is_empty()
        {
            return text;
        }
        if !self.faults.0.iter().any(|fault| fault.attribute == name) {
            self.faults.push(name, "is missing or empty; every event must have it");
        }
        ByteString::new()
    }

    fn payload(&mut self) -> Result<Data, (&'static str, String)> {
        let content_type = self.texts[Member::DataContentType as usize].as_deref();
        match (self.data, self.data_base64.take()) {
            (None, None) => Ok(Data::None),
            (Some(_), Some(_)) => {
                Err(("data_base64", "stands beside data, and an event has one payload; remove one of them".to_owned()))
            }
            (None, Some(text)) => match STANDARD.decode(text.as_bytes()) {
                Ok(bytes) => Ok(Data::Binary(Bytes::from(bytes))),
                Err(error) => {
                    let error = error.to_string();
                    let reason = format!("is not base64 (RFC 4648 section 4): {}", error.trim_end_matches('.'));
                    Err(("data_base64", reason))
                }
            },
            (Some(value), None) if allows_json(content_type) => {
                check_depth(value, self.limits.json_depth).map_err(|reason| ("data", reason))?;
                Ok(Data::Json(self.document.as_bytes().slice_ref(value.as_bytes())))
            }
            (Some(value), None) if value.starts_with('"') => {
                self.unquoted(value).map(Data::Text).map_err(|reason| ("data", reason))
            }
            (Some(_), None) => Err((
                "data",
                "is not a string, but datacontenttype says that it is not JSON; send a string, or base64 in data_base64, \
                 or mend datacontenttype"
                    .to_owned(),
            )),
        }
    }

    /// The string of a JSON value, or nothing for `null`.
    fn string(&self, value: &'a str) -> Result<Option<ByteString>, String> {
        match value.as_bytes()[0] {
            b'n' => Ok(None),
            b'"' => self.unquoted(value).map(Some),
            _ => Err("is not a JSON string; put it in double quotes".to_owned()),
        }
    }

    /// The content of a JSON string, which shares the document where it has no escapes.
    fn unquoted(&self, value: &'a str) -> Result<ByteString, String> {
        if !value.contains('\\') {
            return Ok(self.document.slice_ref(&value[1..value.len() - 1]));
        }
        match serde_json::from_str::<String>(value) {
            Ok(text) => Ok(ByteString::from(text)),
            Err(_) => Err("has an escape that is no character, such as half of a surrogate pair".to_owned()),
        }
    }
}

const DUPLICATE: &str = "stands there more than once; remove all but one";

fn integer(value: &str) -> Result<i32, String> {
    value.parse().map_err(|_| {
        if value.contains(['.', 'e', 'E']) {
            "is a number with a fraction or an exponent, and attributes have whole numbers only; send it as a string"
                .to_owned()
        } else {
            "is beyond the 32 bits of an Integer; send it as a string".to_owned()
        }
    })
}
