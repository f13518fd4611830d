//! Finding and reading resource files.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_schemas::limits::{RESOURCE_FILE_BYTES, RESOURCE_FILES};

use super::diagnostic::Diagnostic;

/// The files that the paths stand for, in the order in which they are read.
pub(crate) fn find(paths: &[PathBuf], diagnostics: &mut Vec<Diagnostic>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        match entries(path) {
            Ok(entries) => files.extend(entries),
            Err(error) => diagnostics.push(Diagnostic::of_file(
                &shown(path),
                format!("cannot be listed: {error}"),
                "give the gateway the right to read the folder",
            )),
        }
    }
    if files.len() > RESOURCE_FILES {
        diagnostics.push(Diagnostic::of_file(
            &shown(&files[RESOURCE_FILES]),
            format!("is one of {} files, and {RESOURCE_FILES} are read at most", files.len()),
            "write several documents into one file",
        ));
        files.truncate(RESOURCE_FILES);
    }
    files
}

fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        // Kubernetes keeps what a mounted folder was and becomes beside it, under names that begin with a full stop.
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if yaml && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A path as diagnostics show it.
pub(crate) fn shown(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}

/// The text of a file, or what hinders reading it.
pub(crate) fn read_text(path: &Path) -> Result<String, Diagnostic> {
    let fault = |what: String, mend: &str| Diagnostic::of_file(&shown(path), what, mend);
    let unreadable = |error: std::io::Error| {
        let mend = match error.kind() {
            std::io::ErrorKind::NotFound => "name a file that is there",
            _ => "give the gateway the right to read it",
        };
        fault(format!("cannot be read: {error}"), mend)
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(RESOURCE_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > RESOURCE_FILE_BYTES {
        return Err(fault(format!("has more than {RESOURCE_FILE_BYTES} bytes"), "split the file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        fault(format!("is not UTF-8 in line {line}"), "save it as UTF-8")
    })
}
