//! What the machine has, and the loud word where it lacks something.

use std::io::Write;
use std::process::{Command, Stdio};

/// Says that a test could not be run here, and why. With `CI=true` that is a failure.
///
/// The line goes past the test runner's capture, and into the file named by `TIDEGATE_NOT_HAD`, from which
/// `scripts/test` makes its summary.
///
/// # Panics
///
/// With `CI=true`, because there everything must be had.
pub fn not_had(what: &str, reason: &str) {
    let line = format!("NOT HAD: {what}: {reason}\n");
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("TIDEGATE_NOT_HAD") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{}", line.trim_end());
}

/// Whether a program can be started here.
pub fn has_program(name: &str) -> bool {
    let started = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    started.is_ok()
}

/// A number from the environment, or the default.
///
/// # Panics
///
/// Where the variable is set to something that is no number, so that a typing error does not run the default.
pub fn number_from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")),
        Err(_) => default,
    }
}
