//! Secrets, which files only name.
//!
//! | written | means |
//! |---|---|
//! | `${env:NAME}`, alone or within a text | the variable of the process |
//! | `{secretKeyRef: {name: NAME}}` | the same, in the form of Dapr; its store is the environment (`secretstores.local.env`) |
//!
//! A secret that is written out is refused, and so is one whose variable is not set. Neither the value nor a text that
//! might be one is ever part of a diagnostic.

use std::fmt;

use super::reader::{Field, Reader};
use super::yaml::Content;

/// A value that is shown as it was named, and nowhere else but through [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: Box<str>,
    named: Box<str>,
}

impl Secret {
    pub(crate) fn new(value: impl Into<Box<str>>, named: impl Into<Box<str>>) -> Self {
        Self { value: value.into(), named: named.into() }
    }

    /// A value that its file writes out, because nothing says that it is a secret. It is not shown all the same.
    pub(crate) fn written_out(value: impl Into<Box<str>>) -> Self {
        Self::new(value, WRITTEN_OUT)
    }

    /// Whether it is only named, as secrets have to be.
    pub fn is_named(&self) -> bool {
        &*self.named != WRITTEN_OUT
    }

    /// The value. Whoever takes it must not show it.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// How it is named.
    pub fn named(&self) -> &str {
        &self.named
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secret({})", self.named)
    }
}

const WRITTEN_OUT: &str = "a text of the file";
pub(crate) const MEND: &str =
    "write `${env:NAME}` or `{secretKeyRef: {name: NAME}}`, and set NAME in the environment of the gateway";

/// Reads a secret, which must be named and not written out.
pub(crate) fn read(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Secret> {
    if let Content::Map(_) = &field.node.content {
        return read_reference(reader, field);
    }
    if let Content::Scalar { text, .. } = &field.node.content
        && !text.contains("${env:")
    {
        let what = format!("`{}` holds a secret itself, and files only name them", field.path);
        reader.fault(field.node.place, what, MEND);
        return None;
    }
    let text = reader.text(field)?;
    Some(Secret::new(text.value, text.written))
}

fn read_reference(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Secret> {
    let fields = reader.map(field, &["secretKeyRef"])?;
    let reference = fields.require(reader, "secretKeyRef", "{name: NAME}")?;
    let fields = reader.map(&reference, &["name", "key"])?;
    let name_field = fields.require(reader, "name", "NAME")?;
    let name = reader.text(&name_field)?;
    if let Some(key_field) = fields.get("key")
        && let Some(key) = reader.text(&key_field)
        && key.value != name.value
    {
        let what = format!("`{}` names a part of a secret, and the environment holds secrets whole", key_field.path);
        reader.fault(key_field.node.place, what, "remove it, or name the variable itself with `name`");
        return None;
    }
    let Some(value) = reader.variable(&name.value) else {
        let what = format!("`{}` needs the variable `{}`, which is not set", reference.path, name.written);
        reader.fault(name_field.node.place, what, format!("set `{}` in the environment of the gateway", name.written));
        return None;
    };
    Some(Secret::new(value, format!("secretKeyRef {}", name.written)))
}
