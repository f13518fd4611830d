//! Where cases by others are, and what became of them.

use std::path::PathBuf;

use serde_json::Value;

use crate::believed_wrong::BELIEVED_WRONG;

/// The folder of the cases, or nothing, and a line that says so, where it is not there.
pub(crate) fn testdata(part: &str) -> Option<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = std::env::var_os("TIDEGATE_TESTDATA").unwrap_or_else(|| "../shared/testdata".into());
    let folder = workspace.join(folder);
    if folder.is_dir() {
        return Some(folder.join(part));
    }
    println!("no test data at {}: cases of {part} are not run", folder.display());
    None
}

/// A JSON file, a byte order mark left out.
pub(crate) fn json_file(path: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Counts the cases of one file and keeps what failed.
pub(crate) struct Tally {
    file: &'static str,
    passed: usize,
    open: usize,
    wrong: usize,
    failures: Vec<String>,
}

impl Tally {
    pub(crate) fn new(file: &'static str) -> Self {
        Self { file, passed: 0, open: 0, wrong: 0, failures: Vec::new() }
    }

    /// A case that the specification decides.
    pub(crate) fn decided(&mut self, name: &str, result: Result<(), String>) {
        let is_listed = BELIEVED_WRONG.iter().any(|(file, case, _)| *file == self.file && *case == name);
        match (result, is_listed) {
            (Ok(()), false) => self.passed += 1,
            (Err(_), true) => self.wrong += 1,
            (Ok(()), true) => self.failures.push(format!("{name}: is listed as believed wrong, and passes")),
            (Err(reason), false) => self.failures.push(format!("{name}: {reason}")),
        }
    }

    /// A case that the specification leaves open; one of the outcomes that it allows must still come about.
    pub(crate) fn open(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.open += 1,
            Err(reason) => self.failures.push(format!("{name}: {reason}")),
        }
    }

    pub(crate) fn finish(self) {
        let Self { file, passed, open, wrong, failures } = self;
        println!("{file}: {passed} passed, {open} left open by the specification, {wrong} believed wrong");
        assert!(failures.is_empty(), "{file}: {} failed:\n{}", failures.len(), failures.join("\n"));
        assert!(passed > 0, "{file}: no case was run");
    }
}
