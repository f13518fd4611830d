//! The log inside the process.

use std::path::Path;
use std::sync::Arc;

use tidegate_backbone::{Environment, Error, PartitionLog};
use tidegate_embedded::{EmbeddedLog, Options};
use tracing::info;

use super::backbone::Opened;
use crate::edge::native::Health;

pub(super) fn open(directory: &Path, environment: &Environment) -> Result<Opened, Error> {
    let options = Options::new(directory);
    #[cfg(feature = "fault-injection")]
    let options = Options { fault: injected_fault(), ..options };
    let opened = EmbeddedLog::open(options, environment)?;
    info!(directory = %directory.display(), "the log is open");
    let log = Arc::clone(&opened) as Arc<dyn PartitionLog>;
    Ok(Opened { log, lane: None, health: Health::new(move || opened.failed(), || None), version: None })
}

/// The fault that a test asks this build to have.
#[cfg(feature = "fault-injection")]
fn injected_fault() -> Option<tidegate_embedded::Fault> {
    let name = std::env::var("TIDEGATE_FAULT").ok()?;
    tracing::warn!(fault = name, "this build breaks its promises on purpose");
    (name == "acknowledge-before-write").then_some(tidegate_embedded::Fault::AcknowledgeBeforeWrite)
}
