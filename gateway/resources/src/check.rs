//! What `tidegate check` finds.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::diagnostic::{Diagnostic, Severity};
use super::document;
use super::reader::Variables;

/// The outcome of a check: shown as one line for each diagnostic and one that counts, or as JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Files that were looked at.
    pub files: usize,
    /// Resources that could be read.
    pub resources: usize,
    /// Everything that was found, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// How many faults there are.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// Whether the files can be applied.
    pub fn is_ok(&self) -> bool {
        self.errors() == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            writeln!(formatter, "{diagnostic}")?;
        }
        let counted = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        write!(
            formatter,
            "{}, {}: {}, {}",
            counted(self.files, "file"),
            counted(self.resources, "resource"),
            counted(self.errors(), "error"),
            counted(self.warnings(), "warning")
        )
    }
}

/// Reads resources, and the configuration of a gateway where one is among them, as [`load`](super::load) does, and
/// reports what it finds. Folders stand for their files.
pub fn check(paths: &[PathBuf], variables: &Variables<'_>) -> Report {
    let (collected, diagnostics, files) = document::read_paths(paths, variables, true);
    Report { files, resources: collected.len(), diagnostics }
}
