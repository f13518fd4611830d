//! The files of the repository, without what was built or fetched.

use std::path::{Path, PathBuf};

/// Folders that are not the project's own text.
const SKIPPED: [&str; 6] = [".git", "target", "corpus", "artifacts", ".tidegate", "node_modules"];

/// Every file, as a path relative to the root, in order.
pub(crate) fn all() -> Vec<PathBuf> {
    let root = tidegate_tests::workspace_root();
    let mut found = Vec::new();
    collect(&root, &mut found);
    let mut files: Vec<_> =
        found.iter().map(|path| path.strip_prefix(&root).expect("it lies below the root").to_path_buf()).collect();
    files.sort();
    assert!(!files.is_empty(), "no files below {}", root.display());
    files
}

/// Every file with this extension.
pub(crate) fn with_extension(extension: &str) -> Vec<PathBuf> {
    all().into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// The text of a file, given relative to the root.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = tidegate_tests::workspace_root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with all that was found, a line each.
#[track_caller]
pub(crate) fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("the folder is readable");
        let name = entry.file_name();
        let kind = entry.file_type().expect("the entry is readable");
        if kind.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                collect(&entry.path(), found);
            }
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}
