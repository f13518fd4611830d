use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A place in a file, counted from 1 as editors do; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}

/// Whether a file can be used in spite of what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot: nothing of the whole set is applied.
    Error,
    /// It can, and somebody should know.
    Warning,
}

/// One thing that was found in a resource file: where, what, and how to mend it.
///
/// It is shown as `FILE:LINE:COLUMN: what (how to mend it)`. A value that came from the environment never appears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Where in the file; nothing where the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl Diagnostic {
    /// A fault of a file as a whole.
    pub(crate) fn of_file(file: &Arc<str>, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { severity: Severity::Error, file: Arc::clone(file), place: None, what: what.into(), mend: mend.into() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file)?;
        if let Some(place) = self.place {
            write!(formatter, ":{place}")?;
        }
        let severity = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        write!(formatter, ": {severity}{} ({})", self.what, self.mend)
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            severity: Severity,
            file: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            line: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            column: Option<usize>,
            what: &'a str,
            mend: &'a str,
        }
        Flat {
            severity: self.severity,
            file: &self.file,
            line: self.place.map(|place| place.line),
            column: self.place.map(|place| place.column),
            what: &self.what,
            mend: &self.mend,
        }
        .serialize(serializer)
    }
}
