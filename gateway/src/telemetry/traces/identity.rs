//! The ids of spans. Most are random; that of a first attempt is a hash of what names the attempt, so that a later attempt,
//! perhaps of another process, can link to it without anything being stored.

use std::cell::Cell;
use std::sync::Arc;

use opentelemetry::trace::{SpanContext, TraceFlags, TraceState};
use opentelemetry::{SpanId, TraceId};
use opentelemetry_sdk::trace::IdGenerator;
use tidegate_backbone::environment::Random;
use xxhash_rust::xxh3::Xxh3Default;

use super::Attempt;

thread_local! {
    /// What the next span of this thread is to be called; the SDK offers no other way in.
    static NEXT: Cell<(Option<TraceId>, Option<SpanId>)> = const { Cell::new((None, None)) };
}

/// The SDK's source of ids.
#[derive(Debug)]
pub(super) struct Ids(pub(super) Arc<dyn Random>);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        if let (Some(trace), _) = NEXT.get() {
            return trace;
        }
        loop {
            let bits = (u128::from(self.0.bits()) << 64) | u128::from(self.0.bits());
            let id = TraceId::from(bits);
            if id != TraceId::INVALID {
                return id;
            }
        }
    }

    fn new_span_id(&self) -> SpanId {
        if let (_, Some(span)) = NEXT.get() {
            return span;
        }
        loop {
            let id = SpanId::from(self.0.bits());
            if id != SpanId::INVALID {
                return id;
            }
        }
    }
}

/// Runs `begin` so that a span that it begins belongs to `trace` where it has no parent, and has the id `span` where one
/// is given.
pub(super) fn with<T>(trace: TraceId, span: Option<SpanId>, begin: impl FnOnce() -> T) -> T {
    NEXT.set((Some(trace), span));
    let begun = begin();
    NEXT.set((None, None));
    begun
}

/// The trace of an event that carries no context: the same for all its deliveries.
pub(super) fn trace_of(attempt: &Attempt<'_>) -> TraceId {
    let mut hasher = Xxh3Default::new();
    for part in [attempt.topic, attempt.event.source(), attempt.event.id()] {
        hash_part(&mut hasher, part);
    }
    hasher.update(&attempt.partition.to_le_bytes());
    hasher.update(&attempt.position.to_le_bytes());
    TraceId::from(hasher.digest128().max(1))
}

/// The span id of the first attempt of a delivery. The time of that attempt is part of it: one that was forgotten in a
/// crash, or that never reached its sink, is not the first any more.
pub(super) fn first_attempt(trace: TraceId, attempt: &Attempt<'_>) -> SpanId {
    let mut hasher = Xxh3Default::new();
    hasher.update(&trace.to_bytes());
    hash_part(&mut hasher, attempt.topic);
    for number in [attempt.uid, u64::from(attempt.partition), attempt.position, attempt.first_attempt_at] {
        hasher.update(&number.to_le_bytes());
    }
    SpanId::from(hasher.digest().max(1))
}

pub(super) fn span_context(trace: TraceId, span: SpanId, sampled: bool) -> SpanContext {
    let flags = TraceFlags::NOT_SAMPLED.with_sampled(sampled);
    SpanContext::new(trace, span, flags, true, TraceState::NONE)
}

/// The length goes first, so that no two lists run together into the same bytes.
fn hash_part(hasher: &mut Xxh3Default, part: &str) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part.as_bytes());
}
