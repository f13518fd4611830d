//! Reads the folder of resources again when it has changed. A faulty file changes nothing: the last good state stays, and
//! every fault is told.
//!
//! The folder is looked at every [`limits::RESOURCES_INTERVAL`]: names, sizes and times of change. That works on every
//! file system, mounted volumes whose files are swapped by a link among them, where notifications of the kernel do not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tidegate_backbone::Environment;
use tidegate_schemas::limits;
use tracing::{error, info, warn};

use crate::blocks::pubsub::PubSub;
use tidegate_resources::{self as resources, Resources, process_variable};

/// What tells a changed folder from an unchanged one.
pub(crate) type Look = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// Runs until the process stops. `seen` is how the folder looked before it was read for what is in force: a file that changes
/// while a gateway starts, which may wait long for its broker, would be overlooked otherwise. `waits` says that not all of
/// it is in force, because a broker beside the backbone is away. `declare` is told of everything that is read, before topics and
/// subscriptions are brought to it.
pub(crate) async fn watch(
    path: PathBuf,
    seen: Look,
    waits: bool,
    block: PubSub,
    declare: impl Fn(&Resources) + Send + 'static,
    environment: Environment,
) {
    let mut seen = Some(seen);
    let soon = || tokio::time::Instant::now() + limits::BRIDGE_INTERVAL;
    // When what waits for a broker is tried again, though nothing has changed.
    let mut again_at = waits.then(soon);
    loop {
        tokio::select! {
            () = environment.stopping().cancelled() => return,
            () = tokio::time::sleep(limits::RESOURCES_INTERVAL) => {}
        }
        let now = look(&path).await;
        let changed = seen.as_ref() != Some(&now);
        if !changed && again_at.is_none_or(|at| tokio::time::Instant::now() < at) {
            continue;
        }
        seen = Some(now);
        again_at = None;
        let folder = path.clone();
        let Some(read) = aside(move || resources::load(&[folder], &process_variable)).await else { continue };
        match read {
            Ok(resources) => {
                for warning in resources.warnings.iter().filter(|_| changed) {
                    warn!("{warning}");
                }
                declare(&resources);
                match block.apply(&resources, Some(&path)).await {
                    Ok(()) => info!(folder = %path.display(), "the changed resources are in force"),
                    Err(errors) => {
                        let (waiting, others): (Vec<_>, Vec<_>) =
                            errors.into_iter().partition(|error| error.waits_for_broker());
                        others.iter().for_each(|error| error!("{error}"));
                        if block.is_shared() && others.iter().any(|error| error.may_pass()) {
                            // The owner of a slot was away, or another gateway was faster: once more.
                            seen = None;
                        }
                        if !waiting.is_empty() {
                            // Told once, however long it takes.
                            waiting.iter().filter(|_| changed).for_each(|error| {
                                warn!("{error}; it is tried again until the broker is there");
                            });
                            again_at = Some(soon());
                        }
                    }
                }
            }
            Err(diagnostics) => {
                for diagnostic in &diagnostics {
                    error!("{diagnostic}");
                }
                error!(folder = %path.display(), faults = diagnostics.len(),
                    "the changed resources have faults; the last good ones stay in force");
            }
        }
    }
}

/// How a folder looks now.
pub(crate) fn look_at(path: &Path) -> Look {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            // The target of a link, not the link: mounted configuration is swapped behind one.
            let metadata = std::fs::metadata(entry.path()).ok()?;
            Some((entry.path(), (metadata.len(), metadata.modified().ok())))
        })
        .collect()
}

async fn look(path: &Path) -> Look {
    let path = path.to_owned();
    aside(move || look_at(&path)).await.unwrap_or_default()
}

/// Runs what blocks on files beside the tasks: one at a time, since its only caller waits for it.
#[expect(
    clippy::disallowed_methods,
    reason = "one job at a time, and the watcher that waits for it is known to shutdown"
)]
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
