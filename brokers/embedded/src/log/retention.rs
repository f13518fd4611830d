//! Space given back: segments that nobody can read from are removed, and those that hold little are emptied
//! (FORMAT.md, Retention). In bounded steps, between commits.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidegate_schemas::limits;

use crate::counters::add;
use crate::log::frame::frame_bytes;
use crate::log::runs::Run;
use crate::log::shared::{Ended, Log};
use crate::log::writer::{Halt, Writer};
use crate::name;

/// How long copying rests when the disk is full.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// A segment is emptied when less than one part in so many of it can still be read.
const EMPTY_BELOW: u64 = 4;

/// A segment that is being emptied.
#[derive(Debug)]
pub(crate) struct Copying {
    source: u64,
    // Positions that are still to be copied: first and, exclusive, last.
    left: VecDeque<(Arc<Log>, u64, u64)>,
}

/// A record that was copied into the buffer.
struct Copied {
    log: Arc<Log>,
    position: u64,
    offset: u64,
    bytes: u64,
}

impl Writer {
    /// How long retention can wait; `None` where it has nothing to do.
    pub(crate) fn tending(&self) -> Option<Duration> {
        if self.failed() || !(self.attention || self.copying.is_some()) {
            return None;
        }
        Some(self.copy_after.saturating_sub(self.shared.clock.since_boot()))
    }

    /// One step. Gives whether it did anything.
    pub(crate) fn tend(&mut self) -> bool {
        if self.tending() != Some(Duration::ZERO) {
            return false;
        }
        if self.copying.is_some() {
            return self.copy_some();
        }
        self.attention = false;
        let Some(active) = self.active.as_ref().map(|active| active.number) else {
            // The last segment holds the state, so it stays, and so does everything until there is another.
            return false;
        };
        let (empty, sparse) = {
            let segments = self.shared.segments.read();
            let sealed = || segments.iter().filter(|(number, segment)| segment.sealed && **number < active);
            let empty: Vec<u64> =
                sealed().filter(|(_, segment)| segment.live == 0).map(|(number, _)| *number).collect();
            let sparse = sealed()
                .find(|(_, segment)| {
                    segment.live > 0 && !segment.damaged && segment.live * EMPTY_BELOW < segment.length
                })
                .map(|(number, _)| *number);
            (empty, sparse)
        };
        self.remove_segments(&empty);
        if let Some(source) = sparse {
            self.copying = Some(Copying { source, left: self.survivors(source) });
        }
        !empty.is_empty() || sparse.is_some()
    }

    fn survivors(&self, source: u64) -> VecDeque<(Arc<Log>, u64, u64)> {
        let logs = self.shared.logs.read();
        let mut survivors = VecDeque::new();
        for log in logs.by_number.values() {
            let state = log.state.read();
            let runs = state.runs.iter().filter(|run| run.segment == source);
            survivors.extend(runs.map(|run| (Arc::clone(log), run.first, run.end)));
        }
        survivors
    }

    /// Copies some records forward; when none is left the segment goes.
    fn copy_some(&mut self) -> bool {
        let Some(mut copying) = self.copying.take() else { return false };
        match self.copy_step(&mut copying) {
            Ok(true) => self.copying = Some(copying),
            Ok(false) => {
                self.attention = true;
                self.remove_segments(&[copying.source]);
            }
            Err(Halt::Full(error)) => {
                tracing::warn!(%error, segment = copying.source, "the disk is too full to empty a segment");
                self.copy_after = self.shared.clock.since_boot() + FULL_PAUSE;
                // What is left is worked out anew, since much may be trimmed by then.
                self.attention = true;
            }
            Err(Halt::Failed(reason)) => self.shared.fail(&reason),
        }
        true
    }

    /// Whether something may be left. The records are durable at their new place when this returns.
    fn copy_step(&mut self, copying: &mut Copying) -> Result<bool, Halt> {
        let mut bodies = Vec::new();
        let mut bytes = 0;
        while bytes < limits::COPY_BYTES as u64
            && let Some((log, first, end)) = copying.left.front_mut()
        {
            let begin = log.state.read().begin;
            *first = (*first).max(begin);
            if *first >= *end || log.visible.borrow().ended == Some(Ended::Deleted) {
                copying.left.pop_front();
                continue;
            }
            match self.shared.record(log.number, *first, copying.source) {
                Ok((header, body)) => {
                    bytes += frame_bytes(body.len());
                    bodies.push((Arc::clone(log), header, body));
                    *first += 1;
                }
                Err(error) => {
                    tracing::error!(segment = copying.source, %error, "a segment cannot be emptied and is kept");
                    if let Some(segment) = self.shared.segments.write().get_mut(&copying.source) {
                        segment.damaged = true;
                    }
                    copying.left.clear();
                    bodies.clear();
                }
            }
        }
        if bodies.is_empty() {
            return Ok(false);
        }
        self.prepare(bytes + frame_bytes(0), self.reserve(), true)?;
        self.begin_frames();
        let base = self.active.as_ref().map_or(0, |active| active.end);
        let mut copied = Vec::with_capacity(bodies.len());
        for (log, header, body) in bodies {
            let (kind, position) = (header.kind.copied(), header.position);
            let at = self.put_verified(kind, log.number, position, header.appended_at, &body, header.body_crc);
            copied.push(Copied { log, position, offset: base + at, bytes: frame_bytes(body.len()) });
        }
        self.write()?;
        self.publish_copies(&copied);
        Ok(true)
    }

    fn publish_copies(&self, copied: &[Copied]) {
        let number = self.active.as_ref().map_or(0, |active| active.number);
        if let Some((_, index)) = &mut *self.shared.active.write() {
            for copy in copied {
                index.add(copy.log.number, copy.position, copy.offset, copy.bytes);
            }
        }
        if let Some(segment) = self.shared.segments.write().get_mut(&number) {
            segment.live += copied.iter().map(|copy| copy.bytes).sum::<u64>();
        }
        // A range at a time: neighbours of one log.
        for range in
            copied.chunk_by(|left, right| left.log.number == right.log.number && left.position + 1 == right.position)
        {
            let (first, last) = (&range[0], &range[range.len() - 1]);
            let bytes = range.iter().map(|copy| copy.bytes).sum();
            let run = Run { first: first.position, end: last.position + 1, segment: number, bytes };
            let released = first.log.state.write().runs.place(run);
            self.shared.release(&released);
        }
        add(&self.shared.counters.records_copied, copied.len() as u64);
    }

    /// Removes segments in which nothing is left. One that comes back after a crash is removed again, so that failing is
    /// no harm.
    fn remove_segments(&self, numbers: &[u64]) {
        let mut removed = false;
        for &number in numbers {
            let empty = self.shared.segments.read().get(&number).is_some_and(|segment| segment.live == 0);
            if !empty {
                continue;
            }
            self.shared.segments.write().remove(&number);
            self.shared.forget(number);
            for path in [name::segment(number), name::index(number)] {
                match self.shared.storage.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(path, %error, "a segment that is no longer needed could not be removed");
                    }
                    _ => {}
                }
            }
            add(&self.shared.counters.segments_removed, 1);
            removed = true;
        }
        if removed && let Err(error) = self.shared.storage.sync_folder(name::SEGMENTS) {
            tracing::warn!(%error, "the removal of segments could not be synchronised");
        }
    }
}
