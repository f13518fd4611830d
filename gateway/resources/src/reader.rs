//! Typed access to a tree of YAML that collects what is wrong instead of stopping at the first fault.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::config::Ratio;
use super::diagnostic::{Diagnostic, Place, Severity};
use super::nearest::nearest;
use super::quantity::{format_duration, format_size, parse_duration, parse_size};
use super::yaml::{Content, Entry, Node};

/// Where `${env:NAME}` finds its values.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The reading of one file.
pub(crate) struct Reader<'a> {
    pub(crate) file: Arc<str>,
    variables: &'a Variables<'a>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Whether files that the text names are read. They are not where somebody sent the text.
    pub(crate) reads_files: bool,
}

/// A value with the path that leads to it, such as `spec.delivery.timeout`.
#[derive(Debug)]
pub(crate) struct Field<'n> {
    pub(crate) path: String,
    pub(crate) node: &'n Node,
    /// Where the key of the value stands, or the value itself where it has no key.
    pub(crate) key_place: Place,
}

/// A map whose keys are all known.
#[derive(Debug)]
pub(crate) struct Fields<'n> {
    path: String,
    place: Place,
    entries: &'n [Entry],
}

/// A text value.
#[derive(Debug)]
pub(crate) struct Text {
    /// The text with its variables filled in. Not for any diagnostic.
    pub(crate) value: String,
    /// The text as it stands in the file.
    pub(crate) written: String,
}

impl Text {
    /// The text for a diagnostic: as it stands in the file, without what may be the credentials of a URL. A faulty URL
    /// may not tell where they end, so everything up to the last `@` counts as such.
    fn shown(&self) -> Cow<'_, str> {
        let written = &self.written;
        let Some((scheme, rest)) = written.split_once(':') else { return Cow::Borrowed(written) };
        match rest.rfind('@') {
            Some(at) => {
                let slashes = if rest.starts_with("//") { "//" } else { "" };
                Cow::Owned(format!("{scheme}:{slashes}...{}", &rest[at..]))
            }
            None => Cow::Borrowed(written),
        }
    }

    /// Whether a part of it came from the environment and may be a secret.
    pub(crate) fn is_substituted(&self) -> bool {
        self.value != self.written
    }
}

impl<'n> Field<'n> {
    /// The whole document.
    pub(crate) fn root(node: &'n Node) -> Self {
        Self { path: String::new(), node, key_place: node.place }
    }
}

impl<'n> Fields<'n> {
    /// The value of a key, if the key is written.
    pub(crate) fn get(&self, key: &str) -> Option<Field<'n>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Field { path: join(&self.path, key), node: &entry.value, key_place: entry.key_place })
    }

    /// Every key with its value, in the order in which they are written.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'n str, Field<'n>)> {
        self.entries.iter().map(|entry| {
            let path = join(&self.path, &entry.key);
            (entry.key.as_str(), Field { path, node: &entry.value, key_place: entry.key_place })
        })
    }

    /// The value of a key that must be there.
    pub(crate) fn require(&self, reader: &mut Reader<'_>, key: &str, example: &str) -> Option<Field<'n>> {
        let field = self.get(key);
        if field.is_none() {
            reader.fault(
                self.place,
                format!("`{}` is missing", join(&self.path, key)),
                format!("add `{key}: {example}`"),
            );
        }
        field
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: Arc<str>, variables: &'a Variables<'a>) -> Self {
        Self { file, variables, diagnostics: Vec::new(), reads_files: true }
    }

    /// The value of a variable of the process.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.variables)(name)
    }

    /// How many faults there are so far, warnings left out.
    pub(crate) fn faults(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    pub(crate) fn fault(&mut self, place: Place, what: impl Into<String>, mend: impl Into<String>) {
        self.push(Severity::Error, place, what.into(), mend.into());
    }

    pub(crate) fn warn(&mut self, place: Place, what: impl Into<String>, mend: impl Into<String>) {
        self.push(Severity::Warning, place, what.into(), mend.into());
    }

    fn push(&mut self, severity: Severity, place: Place, what: String, mend: String) {
        self.diagnostics.push(Diagnostic { severity, file: Arc::clone(&self.file), place: Some(place), what, mend });
    }

    /// Refuses a key that has a meaning which this version does not have yet: ignoring it would be a lie.
    pub(crate) fn not_available(&mut self, field: &Field<'_>, mend: &str) {
        self.fault(field.key_place, format!("`{}` is not available in this version", field.path), mend);
    }

    /// Reports a reason of the form `what; how to mend it` about a value. What may be a secret is not shown, and
    /// neither is a reason that might quote it.
    pub(crate) fn fault_of_text(&mut self, field: &Field<'_>, text: &Text, reason: &dyn Display) {
        let reason = reason.to_string();
        let (what, mend) = reason.split_once("; ").unwrap_or((&reason, "correct the value"));
        if text.is_substituted() {
            let what = format!("`{}` is not valid with its variables filled in", field.path);
            self.fault(field.node.place, what, format!("check the variables in `{}`", text.shown()));
        } else {
            self.fault(field.node.place, format!("`{}`: `{}` {what}", field.path, text.shown()), mend);
        }
    }

    fn wrong_kind(&mut self, field: &Field<'_>, wanted: &str, mend: impl Into<String>) {
        let is = field.node.content.kind();
        let path = if field.path.is_empty() { "the document".to_owned() } else { format!("`{}`", field.path) };
        self.fault(field.node.place, format!("{path} must be {wanted} and is {is}"), mend);
    }

    /// A map with none but these keys; unknown ones are reported, each with the nearest known one.
    pub(crate) fn map<'n>(&mut self, field: &Field<'n>, known: &[&str]) -> Option<Fields<'n>> {
        let fields = self.open_map(field)?;
        for entry in fields.entries {
            if !known.contains(&entry.key.as_str()) {
                let mend = match nearest(&entry.key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                self.fault(entry.key_place, format!("`{}` is not known", join(&field.path, &entry.key)), mend);
            }
        }
        Some(fields)
    }

    /// A map with any keys.
    pub(crate) fn open_map<'n>(&mut self, field: &Field<'n>) -> Option<Fields<'n>> {
        match &field.node.content {
            Content::Map(entries) => Some(Fields { path: field.path.clone(), place: field.key_place, entries }),
            _ => {
                self.wrong_kind(field, "a map", "write `key: value` lines below it");
                None
            }
        }
    }

    /// A list with at least one entry.
    pub(crate) fn list<'n>(&mut self, field: &Field<'n>) -> Option<Vec<Field<'n>>> {
        let Content::List(items) = &field.node.content else {
            self.wrong_kind(field, "a list", "write it as `[first, second]`");
            return None;
        };
        if items.is_empty() {
            self.fault(field.node.place, format!("`{}` is an empty list", field.path), "give it at least one entry");
            return None;
        }
        let item = |(index, node): (usize, &'n Arc<Node>)| Field {
            path: format!("{}[{index}]", field.path),
            node,
            key_place: node.place,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A text, with its variables filled in.
    pub(crate) fn text(&mut self, field: &Field<'_>) -> Option<Text> {
        match &field.node.content {
            Content::Scalar { text, .. } if field.node.content.kind() == "a text" => {
                let value = self.substitute(field, text)?;
                Some(Text { value, written: text.clone() })
            }
            Content::Scalar { .. } => {
                self.wrong_kind(field, "a text", "put it in quotes");
                None
            }
            Content::Null => {
                self.wrong_kind(field, "a text", "give it a value, or remove the key");
                None
            }
            Content::List(_) | Content::Map(_) => {
                self.wrong_kind(field, "a text", "write a single value");
                None
            }
        }
    }

    /// A text that `parse` understands. The reasons that it gives have the form `what; how to mend it`.
    pub(crate) fn parsed<T, E: Display>(
        &mut self,
        field: &Field<'_>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(field)?;
        match parse(&text.value) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.fault_of_text(field, &text, &reason);
                None
            }
        }
    }

    /// One word of a few.
    pub(crate) fn choice<T: Copy>(&mut self, field: &Field<'_>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(field)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let mend = nearest(&text.value, words.iter().copied())
            .filter(|_| !text.is_substituted())
            .map_or_else(|| format!("write one of: {}", words.join(", ")), |near| format!("did you mean `{near}`?"));
        self.fault_of_text(field, &text, &format_args!("is not known here; {mend}"));
        None
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, field: &Field<'_>) -> Option<bool> {
        match &field.node.content {
            Content::Scalar { text, plain: true } if field.node.content.kind() == "a boolean" => {
                Some(text.eq_ignore_ascii_case("true"))
            }
            _ => {
                self.wrong_kind(field, "a boolean", "write true or false, without quotes");
                None
            }
        }
    }

    /// A whole number within a range.
    pub(crate) fn integer(&mut self, field: &Field<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let mend = format!("write a whole number from {} to {}", range.start(), range.end());
        let Content::Scalar { text, plain: true } = &field.node.content else {
            self.wrong_kind(field, "a number", mend);
            return None;
        };
        if field.node.content.kind() != "a number" {
            self.wrong_kind(field, "a number", mend);
            return None;
        }
        match text.parse::<u64>() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                self.fault(field.node.place, format!("`{}` is {text} and out of range", field.path), mend);
                None
            }
        }
    }

    /// A number from 0 to 1.
    pub(crate) fn ratio(&mut self, field: &Field<'_>) -> Option<Ratio> {
        const MEND: &str = "write a number from 0 to 1";
        let Content::Scalar { text, plain: true } = &field.node.content else {
            self.wrong_kind(field, "a number", MEND);
            return None;
        };
        let ratio = text.parse::<f64>().ok().and_then(Ratio::new);
        if ratio.is_none() {
            self.fault(field.node.place, format!("`{}` is {text} and no ratio", field.path), MEND);
        }
        ratio
    }

    /// [`Reader::integer`] for a range that ends within 32 bits.
    pub(crate) fn integer_u32(&mut self, field: &Field<'_>, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.integer(field, u64::from(*range.start())..=u64::from(*range.end()))?;
        u32::try_from(number).ok()
    }

    /// A duration within a range.
    pub(crate) fn duration(&mut self, field: &Field<'_>, range: RangeInclusive<Duration>) -> Option<Duration> {
        if field.node.content.kind() == "a number" {
            self.wrong_kind(field, "a duration", "give the number its unit: ms, s, m, h or d, for example `15s`");
            return None;
        }
        self.parsed(field, |text| {
            let duration = parse_duration(text)?;
            if range.contains(&duration) {
                return Ok(duration);
            }
            let (least, most) = (format_duration(*range.start()), format_duration(*range.end()));
            Err(format!("is out of range; write a duration from {least} to {most}"))
        })
    }

    /// A size in bytes within a range.
    pub(crate) fn size(&mut self, field: &Field<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let check = |text: &str| {
            let bytes = parse_size(text)?;
            if range.contains(&bytes) {
                return Ok(bytes);
            }
            let (least, most) = (format_size(*range.start()), format_size(*range.end()));
            Err(format!("is out of range; write a size from {least} to {most}"))
        };
        // A plain number is a number of bytes.
        if let (Content::Scalar { text, plain: true }, "a number") = (&field.node.content, field.node.content.kind()) {
            let text = Text { value: text.clone(), written: text.clone() };
            return check(&text.value).map_err(|reason| self.fault_of_text(field, &text, &reason)).ok();
        }
        self.parsed(field, check)
    }

    /// The value as JSON, with the variables of its texts filled in.
    pub(crate) fn json(&mut self, field: &Field<'_>) -> Value {
        match &field.node.content {
            Content::Null => Value::Null,
            Content::List(items) => {
                let child = |(index, node)| Field {
                    path: format!("{}[{index}]", field.path),
                    node,
                    key_place: field.key_place,
                };
                items.iter().map(|node| &**node).enumerate().map(|item| self.json(&child(item))).collect()
            }
            Content::Map(entries) => {
                let mut object = serde_json::Map::new();
                for entry in entries {
                    let path = join(&field.path, &entry.key);
                    let child = Field { path, node: &entry.value, key_place: entry.key_place };
                    object.insert(entry.key.clone(), self.json(&child));
                }
                Value::Object(object)
            }
            content @ Content::Scalar { text, .. } => match content.kind() {
                "a boolean" => Value::Bool(text.eq_ignore_ascii_case("true")),
                "a number" => text
                    .parse::<i64>()
                    .map(Value::from)
                    .or_else(|_| text.parse::<f64>().map(Value::from))
                    .unwrap_or(Value::Null),
                // A missing variable has been reported; the text as written keeps what reads on from it quiet.
                _ => Value::String(self.substitute(field, text).unwrap_or_else(|| text.clone())),
            },
        }
    }

    /// Fills in `${env:NAME}`; `$${` is a plain `${`.
    fn substitute(&mut self, field: &Field<'_>, text: &str) -> Option<String> {
        if !text.contains("${") {
            return Some(text.to_owned());
        }
        let mut filled = Some(String::with_capacity(text.len()));
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, behind) = rest.split_at(start);
            if let Some(before) = before.strip_suffix('$') {
                append(&mut filled, before);
                append(&mut filled, "${");
                rest = &behind[2..];
                continue;
            }
            append(&mut filled, before);
            let Some(end) = behind.find('}') else {
                self.fault(
                    field.node.place,
                    format!("`{}` has a `${{` without a `}}`", field.path),
                    "write `${env:NAME}`, or `$${` for the two characters themselves",
                );
                return None;
            };
            let inside = &behind[2..end];
            match inside.strip_prefix("env:") {
                Some(name) if !name.is_empty() => match (self.variables)(name) {
                    Some(value) => append(&mut filled, &value),
                    None => {
                        filled = None;
                        let what = format!("`{}` needs the variable `{name}`, which is not set", field.path);
                        let mend = format!(
                            "set `{name}` in the environment of the gateway; a request to its API takes no variables"
                        );
                        self.fault(field.node.place, what, mend);
                    }
                },
                _ => {
                    filled = None;
                    self.fault(
                        field.node.place,
                        format!("`{}` holds `${{{inside}}}`, which is not known", field.path),
                        "write `${env:NAME}`, or `$${` for the two characters themselves",
                    );
                }
            }
            rest = &behind[end + 1..];
        }
        append(&mut filled, rest);
        filled
    }
}

fn append(text: &mut Option<String>, part: &str) {
    if let Some(text) = text {
        text.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (written, shown) in [
            ("amqp://u:hush@h/v", "amqp://...@h/v"),
            ("amqp://u:hu/sh@h", "amqp://...@h"),
            ("amqp:u:hush@h", "amqp:...@h"),
            ("http://h/hook", "http://h/hook"),
            ("a@b", "a@b"),
        ] {
            let text = Text { value: written.to_owned(), written: written.to_owned() };
            assert_eq!(text.shown(), shown);
        }
    }
}
