//! The embedded log keeps the contract: the suite of `tidegate-conformance`, on a directory, and where a case lets the
//! machine crash or the disk fill up, on the disk in memory that can do both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidegate_backbone::request::Hub;
use tidegate_backbone::{BoxFuture, Environment, Lane, PartitionLog, Result};
use tidegate_conformance::{Case, Fixture, Need, cases, document, run};
use tidegate_embedded::storage::crashing::CrashingStorage;
use tidegate_embedded::{EmbeddedLog, Options};

/// On the file system.
struct Directory {
    folder: tempfile::TempDir,
    hub: Hub,
}

impl Fixture for Directory {
    fn open<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>> {
        Box::pin(async move {
            let log = EmbeddedLog::open(Options::new(self.folder.path()), environment)?;
            Ok(log as Arc<dyn PartitionLog>)
        })
    }

    /// The log is one process's; its lane is the one inside the process.
    fn open_lane<'a>(&'a self, _environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn Lane>>> {
        Box::pin(async { Ok(self.hub.lane()) })
    }
}

/// On a disk that forgets at a crash what was not synchronised.
struct Disk {
    storage: Mutex<Arc<CrashingStorage>>,
    crashes: AtomicU64,
}

impl Disk {
    fn new() -> Self {
        Self { storage: Mutex::new(CrashingStorage::new()), crashes: AtomicU64::new(0) }
    }
}

impl Fixture for Disk {
    fn open<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>> {
        Box::pin(async move {
            let mut options = Options::new("memory");
            // Several segments in one case.
            options.segment_bytes = 256 * 1024;
            options.allocation_bytes = 64 * 1024;
            let storage = Arc::clone(&self.storage.lock());
            Ok(EmbeddedLog::open_on(storage, options, environment)? as Arc<dyn PartitionLog>)
        })
    }

    fn crash(&self) -> BoxFuture<'_, ()> {
        let seed = self.crashes.fetch_add(1, Ordering::SeqCst);
        let mut storage = self.storage.lock();
        let rebooted = storage.reboot(seed);
        *storage = rebooted;
        Box::pin(async {})
    }

    fn fill(&self, full: bool) {
        self.storage.lock().capacity_bytes(full.then_some(4 * 1024 * 1024));
    }
}

fn make(case: &Case) -> Arc<dyn Fixture> {
    if case.needs.contains(&Need::Crash) || case.needs.contains(&Need::StorageFull) {
        return Arc::new(Disk::new());
    }
    let folder = tempfile::tempdir().expect("a directory for tests can be made");
    Arc::new(Directory { folder, hub: Hub::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_conforms() {
    let met = [Need::Reopen, Need::Crash, Need::StorageFull, Need::Exclusive, Need::Lane];
    let only = std::env::var("TIDEGATE_CASE").ok();
    let report = run(&cases(), &met, only.as_deref(), make).await;
    let failures = report.failures();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
    if only.is_some() {
        return;
    }
    let differences = document::record("embedded", concat!("Tidegate ", env!("CARGO_PKG_VERSION")), &report);
    assert!(
        differences.is_empty(),
        "TIDEGATE_REWRITE=1 cargo test -p tidegate-embedded --test conformance writes the column anew:\n{}",
        differences.join("\n")
    );
}
