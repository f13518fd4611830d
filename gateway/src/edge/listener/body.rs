use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tidegate_backbone::budget::{Account, Budget, Exhausted, Permit};
use tidegate_schemas::limits;
use tokio::time::{Instant, Sleep};

use crate::edge::problem::{Code, Problem};

use super::Limits;
use super::options::BodyPace;
use super::pulse::{InFlight, Pulse};
use super::stall::Stall;

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
    /// There is no memory for more of it.
    #[error("The gateway has no memory for the body: {0}.")]
    NoMemory(#[from] Exhausted),
    /// The client broke off, or its framing is not HTTP.
    #[error("The body ended early: {0}.")]
    Broken(#[from] hyper::Error),
}

impl From<&BodyError> for Problem {
    fn from(error: &BodyError) -> Self {
        let code = match error {
            BodyError::TooLarge { .. } => Code::BodyTooLarge,
            BodyError::TooSlow { .. } => Code::BodyTooSlow,
            BodyError::NoMemory(_) => Code::Overloaded,
            BodyError::Broken(_) => Code::MalformedRequest,
        };
        let problem = Self::new(code, error.to_string());
        if code == Code::Overloaded { problem.with_retry_after(limits::MEMORY_RETRY_AFTER) } else { problem }
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

/// The body of a request, bounded in size, pace and memory.
///
/// What came of it counts as long as its [`Counted`] lives. That is from its first byte until the answer begins, because
/// whoever reads it whole holds it so long.
#[derive(Debug)]
pub(super) struct Bounded {
    inner: Incoming,
    limit_bytes: Option<usize>,
    read_bytes: usize,
    pace: Option<Pace>,
    memory: Option<Arc<Counted>>,
    ended: bool,
    /// Told where the body is given up before its end.
    pulse: Arc<Pulse>,
}

/// The memory that a body takes.
#[derive(Debug)]
pub(super) struct Counted(Mutex<Permit>);

impl Counted {
    pub(super) fn new(memory: &Budget) -> Arc<Self> {
        Arc::new(Self(Mutex::new(memory.take(Account::Bodies, 0))))
    }
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
    pub(super) fn new(inner: Incoming, limits: &Limits, memory: Option<Arc<Counted>>, pulse: Arc<Pulse>) -> Self {
        let ended = http_body::Body::is_end_stream(&inner);
        // Most requests have no body or bring it along with the header; those need no timer.
        let pace = limits.body_pace.filter(|_| !ended).map(Pace::new);
        Self { inner, limit_bytes: limits.body_bytes, read_bytes: 0, pace, memory, ended, pulse }
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        if !self.ended {
            self.pulse.leaves_unread();
        }
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
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, bytes::Buf::remaining);
        self.read_bytes = self.read_bytes.saturating_add(bytes);
        if let Some(limit_bytes) = self.limit_bytes.filter(|limit| self.read_bytes > *limit) {
            return Poll::Ready(Some(Err(BodyError::TooLarge { limit_bytes })));
        }
        if let Some(memory) = &self.memory {
            memory.0.lock().try_grow(bytes).map_err(BodyError::from)?;
        }
        if let Some(pace) = &mut self.pace {
            pace.received(bytes);
        }
        self.ended = http_body::Body::is_end_stream(&self.inner);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer; its request is in flight as long as it lives. What is handed over counts until it was written.
#[derive(Debug)]
pub(super) struct Answer {
    inner: Body,
    memory: Budget,
    /// For what is there already, whatever was handed over of it.
    whole: Option<Permit>,
    /// What is handed over piece by piece, where it is one of HTTP/2: the layer below takes a piece of any length for one
    /// byte of the client's window.
    rest: Bytes,
    stall: Option<Arc<Stall>>,
    _in_flight: InFlight,
}

impl Answer {
    /// The body, or nothing where there is no memory for it.
    pub(super) fn new(inner: Body, memory: &Budget, in_flight: InFlight) -> Result<Self, (Exhausted, InFlight)> {
        let length = http_body::Body::size_hint(&inner).exact().and_then(|length| usize::try_from(length).ok());
        let whole = match length.filter(|length| *length > 0) {
            None => None,
            Some(length) if length < limits::ANSWER_REFUSABLE_BYTES => Some(memory.take(Account::Answers, length)),
            Some(length) => match memory.try_take(Account::Answers, length) {
                Ok(permit) => Some(permit),
                Err(exhausted) => return Err((exhausted, in_flight)),
            },
        };
        let stall = Stall::current();
        if let Some(stall) = &stall {
            stall.handed_over();
        }
        Ok(Self { inner, memory: memory.clone(), whole, rest: Bytes::new(), stall, _in_flight: in_flight })
    }

    fn next_piece(&mut self) -> Bytes {
        let bytes = self.rest.len().min(limits::HTTP2_FRAME_BYTES as usize);
        self.rest.split_to(bytes)
    }

    fn counted(&mut self, data: Bytes) -> Bytes {
        let part = self.whole.as_mut().and_then(|whole| whole.split(data.len()));
        part.unwrap_or_else(|| self.memory.take(Account::Answers, data.len())).hold(data)
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(stall) = &self.stall {
            stall.asked_for();
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let data = self.counted(data);
                        if self.stall.is_none() {
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                        self.rest = data;
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        if let Some(stall) = &self.stall {
            stall.handed_over();
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
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
