//! The embedded log keeps the contract: the suite of `tidegate-conformance`, on a directory, and where a case lets the
//! machine crash or the disk fill up, on the disk in memory that can do both.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidegate_backbone::request::Hub;
use tidegate_backbone::{BoxFuture, Environment, Lane, PartitionLog, Result};
use tidegate_conformance::{Case, Fixture, Need, cases, matrix, run};
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let expected = format!("{DOCUMENT}{}", matrix(&[("embedded", &report)]));
    if std::env::var_os("TIDEGATE_REWRITE").is_some() {
        std::fs::write(&path, &expected).expect("the document can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/conformance.md differs from this run; \
         TIDEGATE_REWRITE=1 cargo test -p tidegate-embedded --test conformance writes it anew"
    );
}

const DOCUMENT: &str = "\
# Conformance

Which broker keeps which part of the contract. The table is made by running the suite of `brokers/conformance` against each
broker, and a test compares the two. `yes` means that the case passes; `-` that it does not run, for the reason that stands
beside it.

";
