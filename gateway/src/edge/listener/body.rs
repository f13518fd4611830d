use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::edge::problem::{Code, Problem};

use super::options::BodyPace;
use super::pulse::InFlight;

/// Why the body of a request could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than the listener takes.
    #[error("The body has more than {limit_bytes} bytes.")]
    TooLarge {
        /// The most bytes that it may have.
        limit_bytes: usize,
    },
    /// It came too slowly.
    #[error("The body came at less than {bytes_per_second} bytes a second.")]
    TooSlow {
        /// The pace that it must keep.
        bytes_per_second: u64,
    },
    /// The client broke off, or its framing is not HTTP.
    #[error("The body ended early: {0}.")]
    Broken(#[from] hyper::Error),
}

impl From<&BodyError> for Problem {
    fn from(error: &BodyError) -> Self {
        let code = match error {
            BodyError::TooLarge { .. } => Code::BodyTooLarge,
            BodyError::TooSlow { .. } => Code::BodyTooSlow,
            BodyError::Broken(_) => Code::MalformedRequest,
        };
        Self::new(code, error.to_string())
    }
}

/// Reads a whole body that came through the listener, which bounds it. A failure is the problem to answer with.
pub async fn read_body(body: Body) -> Result<Bytes, Problem> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(body_problem(&error)),
    }
}

/// The problem behind an error of a body, however often it was wrapped.
fn body_problem(error: &(dyn std::error::Error + 'static)) -> Problem {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<BodyError>() {
            return Problem::from(error);
        }
        cause = error.source();
    }
    Problem::new(Code::MalformedRequest, format!("The body cannot be read: {error}."))
}

/// The body of a request, bounded in size and pace.
#[derive(Debug)]
pub(super) struct Bounded {
    inner: Incoming,
    limit_bytes: Option<usize>,
    read_bytes: usize,
    pace: Option<Pace>,
}

/// Every byte moves the deadline by what it should have taken, never beyond the grace from now. A body that keeps the
/// pace lives for ever; one that falls behind uses up the grace.
#[derive(Debug)]
struct Pace {
    limit: BodyPace,
    sleep: Pin<Box<Sleep>>,
    /// Since when the gateway itself has not asked for more. That time is not the client's fault.
    rested_since: Option<Instant>,
}

impl Pace {
    fn new(limit: BodyPace) -> Self {
        let sleep = Box::pin(tokio::time::sleep(limit.grace));
        Self { limit, sleep, rested_since: Some(Instant::now()) }
    }

    fn resume(&mut self) {
        if let Some(since) = self.rested_since.take() {
            let deadline = self.sleep.deadline() + since.elapsed();
            self.sleep.as_mut().reset(deadline);
        }
    }

    fn received(&mut self, bytes: usize) {
        let now = Instant::now();
        let earned = Duration::from_secs_f64(bytes as f64 / self.limit.bytes_per_second.max(1) as f64);
        let deadline = (self.sleep.deadline() + earned).min(now + self.limit.grace);
        self.sleep.as_mut().reset(deadline);
        self.rested_since = Some(now);
    }
}

impl Bounded {
    pub(super) fn new(inner: Incoming, limit_bytes: Option<usize>, pace: Option<BodyPace>) -> Self {
        // Most requests have no body or bring it along with the header; those need no timer.
        let pace = pace.filter(|_| !http_body::Body::is_end_stream(&inner)).map(Pace::new);
        Self { inner, limit_bytes, read_bytes: 0, pace }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(pace) = &mut self.pace {
            pace.resume();
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            if let Some(pace) = &mut self.pace {
                ready!(pace.sleep.as_mut().poll(context));
                let bytes_per_second = pace.limit.bytes_per_second;
                return Poll::Ready(Some(Err(BodyError::TooSlow { bytes_per_second })));
            }
            return Poll::Pending;
        };
        let frame = match frame {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, bytes::Buf::remaining);
        self.read_bytes = self.read_bytes.saturating_add(bytes);
        if let Some(limit_bytes) = self.limit_bytes.filter(|limit| self.read_bytes > *limit) {
            return Poll::Ready(Some(Err(BodyError::TooLarge { limit_bytes })));
        }
        if let Some(pace) = &mut self.pace {
            pace.received(bytes);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer; its request is in flight as long as it lives.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) inner: Body,
    pub(super) _in_flight: InFlight,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_may_fall_behind_by_the_grace_and_no_further() {
        let limit = BodyPace { grace: Duration::from_secs(10), bytes_per_second: 1_024 };
        // (bytes a second, seconds until it is too slow)
        for (bytes, dies_after) in [(0, Some(10)), (512, Some(20)), (1_000, Some(385)), (1_024, None), (1 << 20, None)]
        {
            let mut pace = Pace::new(limit);
            let started = Instant::now();
            let died = loop {
                pace.resume();
                tokio::time::advance(Duration::from_secs(1)).await;
                if pace.sleep.as_mut().now_or_never().is_some() {
                    break Some(started.elapsed().as_secs());
                }
                if started.elapsed() > Duration::from_secs(3_600) {
                    break None;
                }
                pace.received(bytes);
            };
            match dies_after {
                None => assert_eq!(died, None, "{bytes} bytes a second"),
                Some(seconds) => assert!(died.is_some_and(|died| died.abs_diff(seconds) <= 2), "{bytes}: {died:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_before_is_no_credit_and_the_time_of_the_gateway_does_not_count() {
        let mut pace = Pace::new(BodyPace { grace: Duration::from_secs(10), bytes_per_second: 1_024 });
        pace.resume();
        pace.received(1 << 30);
        tokio::time::advance(Duration::from_secs(100)).await;
        pace.resume();
        assert!(pace.sleep.as_mut().now_or_never().is_none(), "the gateway rested, not the client");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(pace.sleep.as_mut().now_or_never().is_some(), "a fast beginning bought a long silence");
    }
}
