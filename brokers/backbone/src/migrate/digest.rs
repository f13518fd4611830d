//! What an event is, in 32 bytes: equal on every broker that carries it unchanged.

use std::borrow::Cow;
use std::fmt;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tidegate_schemas::{Data, Event};

/// SHA-256 over every attribute by name, in the order of names, and the data. Attributes count as text, because brokers carry
/// them as that; a payload that is empty counts as none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(event: &Event) -> Self {
        let mut context = Context::new(&SHA256);
        let mut part = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        for name in ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema"] {
            let value = match (event.attribute(name), event.data()) {
                (None, Data::Json(_)) if name == "datacontenttype" => Some(Cow::Borrowed("application/json")),
                (value, _) => value,
            };
            if let Some(value) = value {
                part(name.as_bytes());
                part(value.as_bytes());
            }
        }
        let mut extensions: Vec<_> = event.extensions().collect();
        extensions.sort_unstable_by(|one, other| one.0.cmp(other.0));
        for (name, value) in extensions {
            part(name.as_bytes());
            part(value.canonical().as_bytes());
        }
        part(b"");
        part(event.data().as_bytes());
        Self::ended(context)
    }

    /// That of everything before and of one more event.
    pub(super) fn then(self, next: Self) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&self.0);
        context.update(&next.0);
        Self::ended(context)
    }

    fn ended(context: Context) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("{text:?} is no SHA-256, which has 64 hexadecimal digits");
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(fault());
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(|_| fault())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_schemas::Value;

    use super::*;

    #[test]
    fn every_part_of_an_event_counts_and_its_form_does_not() {
        let event = || Event::builder("1", "/s", "t").extension("region", Value::String("eu".into()));
        let base = Digest::of(&event().build().unwrap());
        assert_eq!(base, Digest::of(&event().data(Data::Text("".into())).build().unwrap()));
        let number = Event::builder("1", "/s", "t").extension("n", Value::Integer(7)).build().unwrap();
        let text = Event::builder("1", "/s", "t").extension("n", Value::String("7".into())).build().unwrap();
        assert_eq!(Digest::of(&number), Digest::of(&text));
        let json = || event().data(Data::Json("{}".into()));
        let told = json().data_content_type("application/json").build().unwrap();
        assert_eq!(Digest::of(&json().build().unwrap()), Digest::of(&told));
        let others = [
            event().data(Data::Text("x".into())),
            event().subject("x"),
            event().extension("other", Value::String("eu".into())),
            event().time("2026-01-01T00:00:00Z"),
            event().time("2026-01-01T00:00:00.0Z"),
        ];
        let mut all: Vec<Digest> = others.into_iter().map(|other| Digest::of(&other.build().unwrap())).collect();
        all.extend([base, Digest::of(&text)]);
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_ne!(base.then(all[0]), all[0].then(base), "their order counts");
    }

    #[test]
    fn it_is_read_back_from_its_text() {
        let digest = Digest::of(&Event::builder("1", "/s", "t").build().unwrap());
        assert_eq!(Digest::try_from(digest.to_string()).unwrap(), digest);
        for wrong in ["", "00", &"g".repeat(64), &"ä".repeat(32)] {
            Digest::try_from(wrong.to_string()).unwrap_err();
        }
    }
}
