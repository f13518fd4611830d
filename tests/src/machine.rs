//! What the machine has, and the loud word where it lacks something.

use std::process::{Command, Stdio};

pub use tidegate_conformance::not_had;

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

/// Whether long faults, and those that need much of the machine, are wanted (`TIDEGATE_FAULTS=all`); says so where they are not.
pub fn long_faults(what: &str) -> bool {
    let wanted = std::env::var("TIDEGATE_FAULTS").is_ok_and(|faults| faults == "all");
    if !wanted {
        println!("left out without TIDEGATE_FAULTS=all: {what}");
    }
    wanted
}
