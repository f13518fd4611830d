//! Retention gives space back: what a topic lets go of leaves the disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::catalogue::{Retention, Topic};
use tidegate_backbone::{BoxFuture, Environment, PartitionLog, Result};
use tidegate_conformance::{Fixture, Process};
use tidegate_embedded::{EmbeddedLog, Options};
use tidegate_schemas::{Data, Event};

const MIB: u64 = 1024 * 1024;
/// Only against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder whose segments are small.
struct Directory(tempfile::TempDir);

impl Fixture for Directory {
    fn open<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>> {
        Box::pin(async move {
            let mut options = Options::new(self.0.path());
            options.segment_bytes = MIB;
            options.allocation_bytes = MIB / 4;
            Ok(EmbeddedLog::open(options, environment)? as Arc<dyn PartitionLog>)
        })
    }
}

/// What the files of a folder take on the disk.
fn used(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap().map(std::result::Result::unwrap) {
        // A segment may be removed between being listed and being looked at.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { used(&entry.path()) } else { metadata.blocks() * 512 };
    }
    bytes
}

/// A topic that keeps what `retention` says.
async fn topic(process: &Process, name: &str, retention: Retention) -> Arc<Topic> {
    let mut spec = process.topic(name, 1).await.unwrap().spec.clone();
    spec.retention = retention;
    process.consume.create_topic(spec).await.unwrap().0
}

fn event(n: usize) -> Event {
    let data = Data::Binary(vec![b'x'; 16 * 1024].into());
    Event::builder(n.to_string(), "/space", "com.example.case").data(data).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_topic_lets_go_of_leaves_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let fixture: Arc<dyn Fixture> = Arc::new(Directory(folder));
    let process = Process::start(&fixture, &Arc::default()).await.unwrap();
    let bounded = topic(&process, "bounded", Retention { age: None, bytes: Some(4 * MIB) }).await;
    let kept = topic(&process, "kept", Retention::default()).await;
    for n in 0..64 {
        process.publish_all(&bounded, (0..24).map(|m| event(n * 100 + m)).collect()).await.unwrap();
        process.publish(&kept, event(n)).await.unwrap();
    }
    let before = used(&path);
    assert!(before > 24 * MIB, "{before} bytes before");
    let gone = process.consume.retain().await;
    assert!(gone > 1_000, "{gone} events went");
    let live = 4 * MIB + 64 * 17 * 1024;
    let waiting = async {
        // Segments of which little is left are copied together and removed between commits.
        while used(&path) > live + 4 * MIB {
            process.publish(&bounded, event(9_999)).await.unwrap();
            process.consume.retain().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, waiting).await;
    let after = used(&path);
    assert!(outcome.is_ok(), "{before} bytes before, {after} after, {live} can be read");
    let begin = process.log.info(&kept.log(0)).await.unwrap().begin;
    assert_eq!(begin.0, 0, "a topic that keeps everything has lost something");
    println!("{before} bytes before, {after} after");
    process.stop().await;
}
