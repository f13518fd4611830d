//! A commit from both ends: the frames that its operations become, and what readers see once they are durable.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_backbone::{LogId, Position, Result};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use crate::counters::add;
use crate::error::not_found;
use crate::log::frame::{Kind, frame_bytes};
use crate::log::queue::{Done, Operation, Queued};
use crate::log::recent::Kept;
use crate::log::shared::{Ended, Log, LogState};
use crate::log::writer::Writer;
use crate::name;

/// What an operation will have done once its frame is synchronised.
#[derive(Debug)]
pub(super) enum Effect {
    Nothing,
    Appended { log: Arc<Log>, offset: u64, frame_bytes: u64, kept: Kept },
    Created { log: Arc<Log> },
    Deleted { log: Arc<Log> },
    Trimmed { log: Arc<Log>, before: u64 },
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) effect: Effect,
    pub(super) outcome: Result<Option<Position>>,
    pub(super) done: Option<Done>,
}

impl Writer {
    /// Builds the frames of a commit, and notes what they will have done.
    pub(super) fn build(&mut self, queued: Vec<Queued>) -> Vec<Pending> {
        self.begin_frames();
        let boot_bytes = self.buffer.len();
        let now = self.shared.clock.unix_milliseconds();
        let base = self.active.as_ref().map_or(0, |active| active.end);
        let mut created: HashMap<LogId, Arc<Log>> = HashMap::new();
        let mut pending = Vec::with_capacity(queued.len());
        for Queued { operation, done } in queued {
            let (effect, outcome) = match operation {
                Operation::Append { log, kind, body, body_crc } => {
                    if log.ahead.deleted.load(Ordering::Relaxed) {
                        (Effect::Nothing, Err(not_found(&log.id)))
                    } else {
                        let position = log.ahead.next.load(Ordering::Relaxed);
                        let appended_at = log.ahead.appended_last.load(Ordering::Relaxed).max(now);
                        log.ahead.next.store(position + 1, Ordering::Relaxed);
                        log.ahead.appended_last.store(appended_at, Ordering::Relaxed);
                        let at = self.put_verified(kind, log.number, position, appended_at, &body, body_crc);
                        let frame_bytes = frame_bytes(body.len());
                        let kept = Kept { position, appended_at, kind, body };
                        (Effect::Appended { log, offset: base + at, frame_bytes, kept }, Ok(Some(Position(position))))
                    }
                }
                Operation::Create { id } => (self.build_create(id, &mut created), Ok(None)),
                Operation::Delete { id } => {
                    let log = created.remove(&id).or_else(|| self.shared.logs.read().by_id.get(&id).cloned());
                    match log {
                        Some(log) if !log.ahead.deleted.swap(true, Ordering::Relaxed) => {
                            self.put(Kind::Delete, log.number, 0, 0, &[]);
                            (Effect::Deleted { log }, Ok(None))
                        }
                        _ => (Effect::Nothing, Ok(None)),
                    }
                }
                Operation::Trim { log, before } => {
                    if log.ahead.deleted.load(Ordering::Relaxed) {
                        (Effect::Nothing, Err(not_found(&log.id)))
                    } else {
                        let before = before.min(log.ahead.next.load(Ordering::Relaxed));
                        if before > log.state.read().begin {
                            self.put(Kind::Trim, log.number, before, 0, &[]);
                            (Effect::Trimmed { log, before }, Ok(None))
                        } else {
                            (Effect::Nothing, Ok(None))
                        }
                    }
                }
            };
            pending.push(Pending { effect, outcome, done: Some(done) });
        }
        if self.buffer.len() == boot_bytes {
            // Nothing to write, not even that this is another boot.
            self.buffer.clear();
            self.built_lsn = self.durable_lsn;
        }
        pending
    }

    pub(super) fn build_create(&mut self, id: LogId, created: &mut HashMap<LogId, Arc<Log>>) -> Effect {
        let exists = created.contains_key(&id)
            || self.shared.logs.read().by_id.get(&id).is_some_and(|log| !log.ahead.deleted.load(Ordering::Relaxed));
        if exists {
            return Effect::Nothing;
        }
        let number = self.next_log;
        self.next_log += 1;
        let mut identity = Vec::new();
        name::encode(&id, &mut identity);
        self.put(Kind::Create, number, 0, 0, &identity);
        let log = Arc::new(Log::new(number, id.clone(), LogState::default()));
        created.insert(id, Arc::clone(&log));
        Effect::Created { log }
    }

    /// Lets what is durable be seen, and tells those who wait.
    pub(super) fn publish(&mut self, pending: Vec<Pending>) {
        let active = self.active.as_ref().map_or(0, |active| active.number);
        let (mut records, mut live) = (0, 0);
        if let Some((_, index)) = &mut *self.shared.active.write() {
            for pending in &pending {
                if let Effect::Appended { log, offset, frame_bytes, kept } = &pending.effect {
                    index.add(log.number, kept.position, *offset, *frame_bytes);
                    records += 1;
                    live += frame_bytes;
                }
            }
        }
        if let Some(segment) = self.shared.segments.write().get_mut(&active) {
            segment.live += live;
        }
        add(&self.shared.counters.records, records);
        let mut told = Vec::with_capacity(pending.len());
        let mut grown: HashMap<u32, Arc<Log>> = HashMap::new();
        for Pending { effect, outcome, done } in pending {
            match effect {
                Effect::Nothing => {}
                Effect::Appended { log, frame_bytes, kept, .. } => {
                    let (position, appended_at) = (kept.position, kept.appended_at);
                    self.recent.push(&log, kept);
                    let mut state = log.state.write();
                    state.runs.push(position, active, frame_bytes);
                    state.end = position + 1;
                    state.appended_last = appended_at;
                    drop(state);
                    grown.entry(log.number).or_insert(log);
                }
                Effect::Created { log } => self.shared.logs.write().insert(log),
                Effect::Deleted { log } => {
                    self.shared.logs.write().remove(&log);
                    grown.remove(&log.number);
                    let released = {
                        let mut state = log.state.write();
                        state.begin = state.end;
                        let end = state.end;
                        state.runs.cut(end)
                    };
                    self.shared.release(&released);
                    log.recent.lock().clear();
                    log.visible.send_modify(|visible| visible.ended = Some(Ended::Deleted));
                    self.attention = true;
                }
                Effect::Trimmed { log, before } => {
                    let released = {
                        let mut state = log.state.write();
                        state.begin = state.begin.max(before);
                        state.runs.cut(before)
                    };
                    self.shared.release(&released);
                    self.attention = true;
                }
            }
            told.push((outcome, done));
        }
        for log in grown.values() {
            let end = log.state.read().end;
            log.visible.send_modify(|visible| visible.end = end);
        }
        let told = match &self.answers {
            None => told,
            Some(answers) => match answers.try_send(told) {
                Ok(()) => return,
                // The task is busy or was told to end: this thread answers by itself.
                Err(TrySendError::Full(told) | TrySendError::Closed(told)) => told,
            },
        };
        answer(told);
    }
}

/// The outcomes of one commit, for those who wait for them.
pub(crate) type Answers = Vec<(Result<Option<Position>>, Option<Done>)>;

fn answer(told: Answers) {
    for (outcome, done) in told {
        if let Some(done) = done {
            // Whoever asked may be gone; the record stays all the same.
            let _ = done.send(outcome);
        }
    }
}

/// Answers one commit after the other until the writer has ended or the process stops, when the writer answers by itself
/// again. Waking many tasks from a thread outside of the runtime takes a lock and often a system call for each; from a
/// task it is one push onto its own queue.
pub(crate) async fn answer_all(mut answers: mpsc::Receiver<Answers>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            told = answers.recv() => match told {
                Some(told) => answer(told),
                None => return,
            },
            () = stopping.cancelled(), if !answers.is_closed() => answers.close(),
        }
    }
}
