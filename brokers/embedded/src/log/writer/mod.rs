//! The one that writes. It takes what is queued, writes it with one call, synchronises once, and only then lets it be
//! seen and acknowledged (FORMAT.md, What a commit does).

mod batch;
mod file;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::{Applied, Error, ErrorKind, Record};
use tidegate_schemas::limits;
use tokio::sync::mpsc;

use crate::counters::add;
use crate::error::{again, closed, from_io};
use crate::log::frame::{HEADER_BYTES, Kind};
use crate::log::queue::{Operation, Queued, Taken};
use crate::log::recent::Recent;
use crate::log::recovery::Recovered;
use crate::log::retention::Copying;
use crate::log::shared::Shared;

pub(crate) use batch::answer_all;
use batch::{Answers, Effect};
pub(crate) use file::{Active, Halt};

/// How long an acknowledgement goes ahead of the write under the fault that does so.
const FAULT_DELAY: Duration = Duration::from_millis(20);

/// The one that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) active: Option<Active>,
    last_number: u64,
    next_log: u32,
    pub(crate) durable_lsn: u64,
    /// The lsn of the last frame in the buffer.
    built_lsn: u64,
    boot: u64,
    /// The segment was begun by an earlier boot, and this one has not written into it.
    continues: bool,
    pub(crate) buffer: Vec<u8>,
    recent: Recent,
    /// Who answers those who wait, where a runtime does it.
    answers: Option<mpsc::Sender<Answers>>,
    pub(crate) copying: Option<Copying>,
    /// Something was released, so a segment may be given up.
    pub(crate) attention: bool,
    /// When copying may go on after the disk was full, by the clock since boot.
    pub(crate) copy_after: Duration,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, boot: u64, active: Option<Active>, recovered: (u64, u32, u64)) -> Self {
        let (last_number, next_log, durable_lsn) = recovered;
        let recent = Recent::new(shared.options.recent_bytes);
        Self {
            shared,
            continues: active.is_some(),
            active,
            last_number,
            next_log,
            durable_lsn,
            built_lsn: durable_lsn,
            boot,
            buffer: Vec::new(),
            recent,
            answers: None,
            copying: None,
            attention: true,
            copy_after: Duration::ZERO,
        }
    }

    /// Has the outcomes of each commit told by a task.
    pub(crate) fn answer_through(&mut self, answers: mpsc::Sender<Answers>) {
        self.answers = Some(answers);
    }

    /// What [`Writer::new`] needs to know of the directory.
    pub(crate) fn start(recovered: &Recovered) -> (u64, u32, u64) {
        (recovered.last_number, recovered.next_log, recovered.durable_lsn)
    }

    /// Writes until the queue is closed and empty, or the log fails.
    pub(crate) fn run(mut self) {
        while self.step(true) {}
        self.finish();
    }

    /// One commit and one step of retention. Gives whether there may be more to do; with `wait` it waits for work.
    pub(crate) fn step(&mut self, wait: bool) -> bool {
        let patience = match self.tending() {
            None if wait => None,
            None => Some(Duration::ZERO),
            Some(pause) => Some(if wait { pause } else { Duration::ZERO }),
        };
        let worked = match self.shared.queue.take(patience) {
            Taken::Work(queued) => {
                self.commit(queued);
                true
            }
            Taken::Idle => false,
            Taken::Closed => return false,
        };
        let tended = self.tend();
        wait || worked || tended
    }

    /// What is done when nothing more will come: the mark that tells the end, and no answer left open.
    pub(crate) fn finish(&mut self) {
        while let Taken::Work(queued) = self.shared.queue.take(Some(Duration::ZERO)) {
            self.commit(queued);
        }
        if self.failed() || self.active.is_none() || self.continues {
            return;
        }
        self.buffer.clear();
        self.built_lsn = self.durable_lsn;
        self.put(Kind::Mark, 0, 0, 0, &[]);
        // Without the mark the last commit is merely harder to tell from a torn one.
        if let Err(halt) = self.prepare(self.buffer.len() as u64, 0, false).and_then(|()| self.write()) {
            tracing::warn!(?halt, "the end of the log could not be marked");
        }
    }

    pub(crate) fn failed(&self) -> bool {
        self.shared.failed.lock().is_some()
    }

    fn commit(&mut self, queued: Vec<Queued>) {
        if self.failed() {
            let reason = self.shared.failed.lock().clone();
            for queued in queued {
                let _ = queued.done.send(Err(closed(reason.as_deref())));
            }
            return;
        }
        let bytes = queued.iter().map(|queued| queued.operation.frame_bytes()).sum::<u64>() + HEADER_BYTES as u64;
        match self.prepare(bytes, self.reserve(), true) {
            Ok(()) => self.commit_prepared(queued),
            Err(Halt::Full(error)) => self.commit_on_full_disk(queued, error),
            Err(Halt::Failed(reason)) => self.give_up(queued, &reason),
        }
    }

    /// Space that is kept for what gives space back.
    pub(crate) fn reserve(&self) -> u64 {
        limits::SEGMENT_RESERVE_BYTES.min(self.shared.options.allocation_bytes / 8)
    }

    /// The appends are refused; trims and deletions go into the space that was kept for them.
    fn commit_on_full_disk(&mut self, queued: Vec<Queued>, error: io::Error) {
        add(&self.shared.counters.storage_full, 1);
        let error = from_io("allocate space in", &self.shared.storage.describe(), error);
        let (releasing, refused): (Vec<_>, Vec<_>) = queued
            .into_iter()
            .partition(|queued| matches!(queued.operation, Operation::Trim { .. } | Operation::Delete { .. }));
        for queued in refused {
            let _ = queued.done.send(Err(again(&error)));
        }
        if releasing.is_empty() {
            return;
        }
        let bytes = releasing.iter().map(|queued| queued.operation.frame_bytes()).sum::<u64>() + HEADER_BYTES as u64;
        match self.prepare(bytes, 0, false) {
            Ok(()) => self.commit_prepared(releasing),
            Err(Halt::Full(_)) => {
                for queued in releasing {
                    let _ = queued.done.send(Err(again(&error)));
                }
            }
            Err(Halt::Failed(reason)) => self.give_up(releasing, &reason),
        }
    }

    fn give_up(&self, queued: Vec<Queued>, reason: &str) {
        self.shared.fail(reason);
        // None of these was written, so they are known to have had no effect.
        for queued in queued {
            let _ = queued.done.send(Err(closed(Some(reason))));
        }
    }

    fn commit_prepared(&mut self, queued: Vec<Queued>) {
        let next_log = self.next_log;
        let mut pending = self.build(queued);
        if self.shared.options.acknowledges_early() {
            for pending in &mut pending {
                if let (Ok(position), Some(done)) = (&pending.outcome, pending.done.take()) {
                    let _ = done.send(Ok(*position));
                }
            }
            if !self.shared.options.by_hand() {
                std::thread::sleep(FAULT_DELAY);
            }
        }
        let written = if self.buffer.is_empty() { Ok(()) } else { self.write() };
        match written {
            Ok(()) => self.publish(pending),
            Err(halt) => {
                self.next_log = next_log;
                let error = match halt {
                    Halt::Full(error) => {
                        add(&self.shared.counters.storage_full, 1);
                        from_io("write to", &self.shared.storage.describe(), error)
                    }
                    Halt::Failed(reason) => {
                        self.shared.fail(&reason);
                        Error::new(ErrorKind::Unknown, reason).outcome_unknown()
                    }
                };
                let unknown = error.applied() == Applied::Unknown;
                for pending in pending {
                    if let Effect::Appended { log, .. } | Effect::Deleted { log } = &pending.effect {
                        log.fall_back();
                    }
                    // A refusal rests on what this commit was to do, so it falls with it, unless nothing was to be done.
                    let outcome = match pending.outcome {
                        Err(refused) if !unknown => Err(refused),
                        _ => Err(again(&error)),
                    };
                    if let Some(done) = pending.done {
                        let _ = done.send(outcome);
                    }
                }
            }
        }
    }
}

/// The kind of frame that holds the record.
pub(crate) fn kind_of(record: &Record) -> Kind {
    match record {
        Record::Event(_) => Kind::Event,
        Record::Frame(_) => Kind::Frame,
    }
}
