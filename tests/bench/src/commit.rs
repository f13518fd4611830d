//! What the disk allows: tasks that append records through one writer, which commits whatever waits with one
//! `fdatasync`. No HTTP, no events, no index: a record is a slice of bytes. Files are allocated ahead in the steps that
//! the embedded log uses, because that decides much of what a synchronisation costs.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{FallocateFlags, fallocate};
use serde_json::json;
use tidegate_schemas::limits::SEGMENT_ALLOCATION_BYTES;
use tokio::sync::oneshot;

use crate::Failure;

const WARM_UP: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The file; it is created
    #[arg(long)]
    file: PathBuf,
    /// Tasks, each with one append in flight
    #[arg(long)]
    connections: usize,
    /// Bytes of a record
    #[arg(long)]
    record_bytes: usize,
    /// Seconds that are measured
    #[arg(long)]
    seconds: f64,
}

struct Append {
    record: Vec<u8>,
    done: oneshot::Sender<()>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Append>>,
    wake: Condvar,
    closed: AtomicBool,
    commits: AtomicU64,
}

/// Appends for a while and prints one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let queue = Arc::new(Queue::default());
    let file = File::options().write(true).create_new(true).open(&arguments.file)?;
    let writer = {
        let queue = Arc::clone(&queue);
        std::thread::Builder::new().name("writer".to_owned()).spawn(move || write(&file, &queue))?
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (rate, commits) = runtime.block_on(async {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..arguments.connections {
            let (queue, acknowledged, stop) = (Arc::clone(&queue), Arc::clone(&acknowledged), Arc::clone(&stop));
            let record = vec![b'x'; arguments.record_bytes];
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (done, outcome) = oneshot::channel();
                    queue.waiting.lock().push_back(Append { record: record.clone(), done });
                    queue.wake.notify_one();
                    if outcome.await.is_err() {
                        return;
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tokio::time::sleep(WARM_UP).await;
        let counts = || (acknowledged.load(Ordering::Relaxed), queue.commits.load(Ordering::Relaxed));
        let (began, before) = (Instant::now(), counts());
        tokio::time::sleep(Duration::from_secs_f64(arguments.seconds)).await;
        let (took, after) = (began.elapsed().as_secs_f64(), counts());
        stop.store(true, Ordering::Relaxed);
        while tasks.join_next().await.is_some() {}
        ((after.0 - before.0) as f64 / took, (after.1 - before.1) as f64 / took)
    });
    {
        // Under the lock, so that the writer cannot miss it between its look and its wait.
        let _waiting = queue.waiting.lock();
        queue.closed.store(true, Ordering::Relaxed);
    }
    queue.wake.notify_all();
    writer.join().map_err(|_| "the writer has panicked")??;
    println!("{}", json!({ "rate": rate, "commits": commits }));
    Ok(())
}

fn write(file: &File, queue: &Queue) -> std::io::Result<()> {
    let (mut end, mut allocated) = (0, 0);
    let mut buffer = Vec::new();
    loop {
        let taken = {
            let mut waiting = queue.waiting.lock();
            while waiting.is_empty() {
                if queue.closed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                queue.wake.wait(&mut waiting);
            }
            std::mem::take(&mut *waiting)
        };
        buffer.clear();
        for append in &taken {
            buffer.extend_from_slice(&append.record);
        }
        let needed = end + buffer.len() as u64;
        if allocated < needed {
            let length = (needed - allocated).next_multiple_of(SEGMENT_ALLOCATION_BYTES);
            fallocate(file, FallocateFlags::empty(), allocated, length)?;
            allocated += length;
        }
        file.write_all_at(&buffer, end)?;
        file.sync_data()?;
        end = needed;
        queue.commits.fetch_add(1, Ordering::Relaxed);
        for append in taken {
            // The task may have ended with the measurement.
            let _ = append.done.send(());
        }
    }
}
