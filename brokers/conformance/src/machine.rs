//! The loud word where a machine lacks what a test needs, or is too busy for it.

use std::io::Write;

/// Says that a test could not be run here, and why. With `CI=true` that is a failure.
///
/// The line goes past the test runner's capture, and into the file named by `TIDEGATE_NOT_HAD`, from which
/// `scripts/test` makes its summary.
///
/// # Panics
///
/// With `CI=true`, because there everything must be had.
pub fn not_had(what: &str, reason: &str) {
    let line = format!("NOT HAD: {what}: {reason}");
    tell(&line, "TIDEGATE_NOT_HAD");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
}

/// Says, in the same ways, that a test passed at its second attempt only; the file is named by `TIDEGATE_UNSTEADY`.
pub(crate) fn unsteady(what: &str, reason: &str) {
    tell(&format!("UNSTEADY: {what}: {reason}"), "TIDEGATE_UNSTEADY");
}

fn tell(line: &str, file_variable: &str) {
    let line = format!("{line}\n");
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os(file_variable) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
