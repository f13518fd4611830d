//! The threads that read files, so that no task of the runtime waits for a disk.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tidegate_backbone::Result;
use tidegate_schemas::limits;
use tokio::sync::{Semaphore, oneshot};

use crate::error::closed;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

struct Inner {
    jobs: Mutex<Jobs>,
    wake: Condvar,
    // A place in the queue; readers without one wait here, in order.
    places: Arc<Semaphore>,
    threads: usize,
}

/// A few threads with a bounded queue. Clones share them.
#[derive(Clone)]
pub(crate) struct Pool {
    inner: Arc<Inner>,
    handles: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pool").field("threads", &self.inner.threads).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts the threads; with none of them the caller's own thread does the work.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let inner = Arc::new(Inner {
            jobs: Mutex::default(),
            wake: Condvar::new(),
            places: Arc::new(Semaphore::new(limits::READ_QUEUE_JOBS)),
            threads,
        });
        let handles = (0..threads)
            .map(|_| {
                let inner = Arc::clone(&inner);
                std::thread::Builder::new().name("tidegate-read".to_owned()).spawn(move || work(&inner))
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Self { inner, handles: Arc::new(Mutex::new(handles)) })
    }

    /// Runs the job on one of the threads, when there is a place in the queue.
    pub(crate) async fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        if self.inner.threads == 0 {
            return job();
        }
        let place = Arc::clone(&self.inner.places).acquire_owned().await.map_err(|_| closed(None))?;
        let (done, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever asked may be gone, and then nobody needs the answer.
            if !done.is_closed() {
                let _ = done.send(job());
            }
            drop(place);
        });
        {
            let mut jobs = self.inner.jobs.lock();
            if jobs.closed {
                return Err(closed(None));
            }
            jobs.waiting.push_back(job);
        }
        self.inner.wake.notify_one();
        receiver.await.unwrap_or_else(|_| Err(closed(None)))
    }

    /// Ends the threads; jobs that wait are dropped, and who waits for them is told.
    pub(crate) fn close(&self) {
        self.inner.places.close();
        let waiting = {
            let mut jobs = self.inner.jobs.lock();
            jobs.closed = true;
            std::mem::take(&mut jobs.waiting)
        };
        drop(waiting);
        self.inner.wake.notify_all();
        for handle in std::mem::take(&mut *self.handles.lock()) {
            let _ = handle.join();
        }
    }
}

fn work(inner: &Inner) {
    loop {
        let job = {
            let mut jobs = inner.jobs.lock();
            loop {
                if let Some(job) = jobs.waiting.pop_front() {
                    break job;
                }
                if jobs.closed {
                    return;
                }
                inner.wake.wait(&mut jobs);
            }
        };
        job();
    }
}
