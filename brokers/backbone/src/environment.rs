//! What the outside world gives a component: time, randomness, memory and tasks. They are arguments and never globals, so
//! that a test can hold the clock, memory is one budget, and shutdown knows every task.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Budget;

/// The two clocks that the product reads. Waiting is `tokio::time`, which tests can pause.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall clock: milliseconds since 1970-01-01T00:00:00Z. May jump; only for what people read and for retention.
    fn unix_milliseconds(&self) -> u64;

    /// Time since the machine booted, suspension included (`CLOCK_BOOTTIME`): for leases and silence.
    fn since_boot(&self) -> Duration;
}

/// Randomness for jitter, identities and names; not for secrets.
pub trait Random: Send + Sync + fmt::Debug {
    /// Sixty-four random bits.
    fn bits(&self) -> u64;
}

/// The world as a component sees it. Clones share the same tasks and the same stop signal.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Memory for what can grow.
    pub memory: Budget,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Environment {
    /// An environment over the given clock and randomness, without a limit on memory.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let memory = Budget::unlimited();
        Self { clock, random, memory, tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// The same with a budget of memory, which every child shares.
    pub fn with_memory(self, memory: Budget) -> Self {
        Self { memory, ..self }
    }

    /// The machine's clocks and the thread's random generator.
    pub fn system() -> Self {
        Self::new(Arc::new(SystemClock), Arc::new(SystemRandom))
    }

    /// Starts a task that [`Environment::stop`] waits for.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(future)
    }

    /// The signal by which tasks learn that they are to end.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// An environment whose tasks stop with this one's, or earlier by themselves.
    pub fn child(&self) -> Self {
        Self {
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            memory: self.memory.clone(),
            tasks: TaskTracker::new(),
            stop: self.stop.child_token(),
        }
    }

    /// Tells every task to end and waits for them, at most `grace`. Gives whether all ended.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }
}

/// A time in whole milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    fn unix_milliseconds(&self) -> u64 {
        let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        milliseconds(elapsed)
    }

    fn since_boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

#[derive(Debug)]
struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "the one place where the thread's generator is asked")]
    fn bits(&self) -> u64 {
        rand::random()
    }
}
