use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

tokio::task_local! {
    /// The stream that a task serves, where it is one of HTTP/2.
    static STREAM: Arc<Stall>;
}

/// Since when the client of an HTTP/2 stream leaves its answer unread.
///
/// A client can take the window of one stream away and keep the connection alive. The protocol's layer then asks for no
/// more of the answer, which is how it is noticed here; the socket never blocks.
#[derive(Debug, Default)]
pub(super) struct Stall(Mutex<Option<Instant>>);

impl Stall {
    /// That of the stream whose task this is.
    pub(super) fn current() -> Option<Arc<Self>> {
        STREAM.try_with(Arc::clone).ok()
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock()
    }

    /// A part of the answer was handed over, and the next is asked for when the client took it.
    pub(super) fn handed_over(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// The client takes what there is.
    pub(super) fn asked_for(&self) {
        *self.0.lock() = None;
    }
}

/// Runs a stream to its end, or until its client has left the answer unread for as long as `patience` says now. Gives
/// whether it came to its end. Dropping a stream resets it.
pub(super) async fn run(stream: impl Future, patience: impl Fn() -> Duration) -> bool {
    let stall = Arc::new(Stall::default());
    let mut stream = pin!(STREAM.scope(Arc::clone(&stall), stream));
    // Most answers are taken at once and need no timer.
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|context| {
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        while let Some(since) = stall.since() {
            let deadline = since + patience();
            if deadline <= Instant::now() {
                return Poll::Ready(false);
            }
            // Looked at again before the end, because patience can become shorter.
            let look = deadline.min(Instant::now() + LOOK);
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(look)));
            if timer.deadline() > look || timer.is_elapsed() {
                timer.as_mut().reset(look);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Pending
    })
    .await
}

/// How often a stalled stream is looked at.
const LOOK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_that_is_left_unread_ends_its_stream() {
        let patience = || Duration::from_secs(60);
        let began = Instant::now();
        let waits = async {
            let stall = Stall::current().expect("the task serves a stream");
            stall.handed_over();
            stall.asked_for();
            tokio::time::sleep(Duration::from_secs(600)).await;
        };
        assert!(run(waits, patience).await, "the gateway itself had nothing to say");
        let stalls = async {
            let stall = Stall::current().expect("the task serves a stream");
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                stall.handed_over();
            }
            std::future::pending::<()>().await;
        };
        let began_stalling = Instant::now();
        assert!(!run(stalls, patience).await);
        let took = began_stalling.elapsed();
        assert!(took >= Duration::from_secs(210) && took < Duration::from_secs(215), "{took:?}");
        assert!(began.elapsed() > Duration::from_secs(800) && Stall::current().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_may_become_shorter() {
        let began = Instant::now();
        let patience = || if began.elapsed() < Duration::from_secs(20) { Duration::from_secs(60) } else { LOOK };
        let stalls = async {
            Stall::current().expect("the task serves a stream").handed_over();
            std::future::pending::<()>().await;
        };
        assert!(!run(stalls, patience).await);
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    }
}
