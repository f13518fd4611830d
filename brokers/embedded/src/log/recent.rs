//! The newest records of the logs that somebody follows, within one bound of bytes: readers at the end are served from
//! here, without reading files.
//!
//! Records are kept in their stored form, which has exactly the bytes that are counted; an event as its publisher made
//! it would hold on to the whole buffer in which its request came. Decoding one costs less than taking apart, on the
//! writer's thread, what another thread put together.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_backbone::{Position, Record, Result, Stored};
use tidegate_schemas::compact;

use crate::error::undecodable;
use crate::log::frame::Kind;
use crate::log::shared::Log;

/// About what a record takes beside its bytes.
const OVERHEAD_BYTES: usize = 96;

/// A record in its stored form.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) position: u64,
    pub(crate) appended_at: u64,
    pub(crate) kind: Kind,
    pub(crate) body: Bytes,
}

/// Which records are kept, oldest first; the records themselves stand in their logs. Owned by the writer.
#[derive(Debug)]
pub(crate) struct Recent {
    order: VecDeque<(Arc<Log>, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { order: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Keeps a record, which is the next of its log: an event where somebody follows the log, and every frame, because its
    /// owner reads it back.
    pub(crate) fn push(&mut self, log: &Arc<Log>, kept: Kept) {
        if matches!(kept.kind, Kind::Event | Kind::EventCopy) && log.visible.receiver_count() == 0 {
            // What is kept has no gap up to the end: from here on nothing of it could be used.
            log.recent.lock().clear();
            return;
        }
        let bytes = kept.body.len() + OVERHEAD_BYTES;
        log.recent.lock().push_back(kept);
        self.order.push_back((Arc::clone(log), bytes));
        self.bytes += bytes;
        while self.bytes > self.bytes_max
            && let Some((log, bytes)) = self.order.pop_front()
        {
            // A log that was deleted or not followed keeps none, and its places in the order are given up one by one.
            log.recent.lock().pop_front();
            self.bytes -= bytes;
        }
    }
}

/// The records from that position on, where they are kept: up to `end`, about `bytes_max`, at least one.
pub(crate) fn read(log: &Log, from: u64, end: u64, bytes_max: usize) -> Result<Vec<Stored>> {
    let kept = take(log, from, end, bytes_max);
    let decode = |kept: Kept| {
        let record = match kept.kind {
            Kind::Event | Kind::EventCopy => {
                Record::Event(compact::decode(kept.body).map_err(|error| undecodable(&log.id, kept.position, error))?)
            }
            _ => Record::Frame(kept.body),
        };
        Ok(Stored { position: Position(kept.position), appended_at: kept.appended_at, record })
    };
    kept.into_iter().map(decode).collect()
}

fn take(log: &Log, from: u64, end: u64, bytes_max: usize) -> Vec<Kept> {
    let recent = log.recent.lock();
    let Some(first) = recent.front().map(|kept| kept.position) else { return Vec::new() };
    let Some(skip) = from.checked_sub(first).and_then(|skip| usize::try_from(skip).ok()) else { return Vec::new() };
    let mut bytes = 0;
    let mut records = Vec::new();
    for kept in recent.iter().skip(skip).take_while(|kept| kept.position < end) {
        bytes += kept.body.len();
        if !records.is_empty() && bytes > bytes_max {
            break;
        }
        records.push(kept.clone());
    }
    records
}
