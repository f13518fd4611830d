//! Threads for calls of the client library that wait for the broker, so that no task of the runtime does.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tidegate_backbone::{Error, ErrorKind, Result};
use tidegate_schemas::limits;
use tokio::sync::oneshot;

use crate::error::{busy, closed};

type Job = Box<dyn FnOnce() + Send>;

/// A few threads with a bounded queue.
pub(crate) struct Calls {
    jobs: Mutex<Option<SyncSender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Calls").finish_non_exhaustive()
    }
}

impl Calls {
    pub(crate) fn new(threads: usize) -> Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(limits::KAFKA_CALLS);
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = (0..threads)
            .map(|_| {
                let waiting = Arc::clone(&waiting);
                std::thread::Builder::new().name("tidegate-kafka".to_owned()).spawn(move || work(&waiting))
            })
            .collect::<std::io::Result<_>>()
            .map_err(|error| {
                Error::new(ErrorKind::Unavailable, "cannot start a thread for calls of Kafka").with_source(error)
            })?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), threads: Mutex::new(threads) })
    }

    /// Queues a job; gives whether there was a place for it.
    pub(crate) fn push(&self, job: impl FnOnce() + Send + 'static) -> Result<()> {
        match &*self.jobs.lock() {
            None => Err(closed()),
            Some(jobs) => jobs.try_send(Box::new(job)).map_err(|error| match error {
                TrySendError::Full(_) => busy("calls"),
                TrySendError::Disconnected(_) => closed(),
            }),
        }
    }

    /// Runs the job on one of the threads.
    pub(crate) async fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        self.push(move || {
            // Whoever asked may be gone, and then nobody needs the answer.
            if !done.is_closed() {
                let _ = done.send(job());
            }
        })?;
        outcome.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Ends the threads after what is queued. Waits for them: not for a task of the runtime.
    pub(crate) fn close(&self) {
        self.jobs.lock().take();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let next = waiting.lock().recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
