//! Where frames stand that this process writes to a journal, without asking.
//!
//! Confirmations carry no position, and a question for the end costs the broker much (`ask`). An owner writes twice a second at
//! least, in each of its slots, and wants to know each time where its frame came to stand. So the journals that it writes to are
//! read along, each by one reader that stays: what it reads is committed, so a frame that it has met by its bytes, which nobody
//! else writes, stands where it was met.
//!
//! An owner that is told the position right behind the one up to which it knows the log relies on nothing standing in between.
//! That holds while positions are not given anew, as they are where a broker has lost the end of a stream and has filled it
//! again: and it loses that only with its own end, and so with the connection. So a reader tells positions only to appends that
//! began after the journal was read back over the reader's present connection, which compares what the owner relied on with
//! what is there. All others are told none, and the owner reads back: the first after the reader has begun, those that were on
//! their way when a connection was lost, and those that are not met in time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_backbone::{LogId, Position, Record, Stored};
use tidegate_schemas::limits;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::adapter::Shared;
use crate::tail::{RabbitTail, Source};

/// The journals that are read along, by their streams.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<HashMap<String, Arc<Watch>>>);

/// One of them.
#[derive(Debug)]
struct Watch {
    state: Mutex<State>,
    end: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// Counts the reader's connections; 0 until it reads, and again when it has ended.
    session: u64,
    /// The one over which the journal was read back.
    compared: u64,
    /// Frames that are to be met, in the order in which they were handed over.
    waiting: VecDeque<(Bytes, oneshot::Sender<Position>)>,
    used: Instant,
}

/// The place of a frame that is on its way.
pub(crate) struct Place {
    shared: Arc<Shared>,
    stream: String,
    watch: Arc<Watch>,
    position: oneshot::Receiver<Position>,
}

impl Place {
    /// Where the frame stands, once the broker has confirmed it; none where that was not met in time.
    pub(crate) async fn told(self) -> Option<Position> {
        match tokio::time::timeout(limits::RABBITMQ_POSITION_TIMEOUT, self.position).await {
            Ok(position) => position.ok(),
            Err(_) => {
                // It may have been forgotten by the broker; the next one begins anew.
                self.shared.watches.end(&self.stream, &self.watch);
                None
            }
        }
    }
}

impl Shared {
    /// Awaits a frame that is about to be written to a journal; none where its place cannot be told. Begins to read along where
    /// that is not done yet.
    pub(crate) fn watch(self: &Arc<Self>, id: &LogId, frame: &Bytes) -> Option<Place> {
        if !matches!(id, LogId::Slot { .. }) {
            return None;
        }
        let stream = self.names.stream(id);
        let known = self.watches.0.lock().get(&stream).cloned();
        if let Some(watch) = known {
            let position = watch.state.lock().wait_for(frame)?;
            return Some(Place { shared: Arc::clone(self), stream, watch, position });
        }
        // From a record on that was there: the frame stands behind it. Where none is known, the owner's own look tells one.
        let from = Position(self.asker.hinted(&stream)?);
        let watch = Arc::new(Watch { state: Mutex::new(State::new()), end: CancellationToken::new() });
        {
            let mut watches = self.watches.0.lock();
            if watches.len() >= limits::RABBITMQ_WATCHES || watches.contains_key(&stream) {
                return None;
            }
            watches.insert(stream.clone(), Arc::clone(&watch));
        }
        let (shared, source) = (Arc::clone(self), Source { id: id.clone(), stream, identity: None });
        self.environment.spawn(async move {
            let stream = source.stream.clone();
            tokio::select! {
                () = shared.environment.stopping().cancelled() => {}
                () = watch.end.cancelled() => {}
                () = watch.follow(&shared, source, from) => {}
            }
            shared.watches.end(&stream, &watch);
            *watch.state.lock() = State::new();
        });
        None
    }
}

impl Watches {
    /// A journal is read back: whoever writes to it has compared, when it goes on writing.
    pub(crate) fn compared(&self, stream: &str) {
        if let Some(watch) = self.0.lock().get(stream) {
            let mut state = watch.state.lock();
            state.compared = state.session;
        }
    }

    /// The journal is gone.
    pub(crate) fn forget(&self, stream: &str) {
        if let Some(watch) = self.0.lock().remove(stream) {
            watch.end.cancel();
        }
    }

    fn end(&self, stream: &str, watch: &Arc<Watch>) {
        watch.end.cancel();
        let mut watches = self.0.lock();
        if watches.get(stream).is_some_and(|known| Arc::ptr_eq(known, watch)) {
            watches.remove(stream);
        }
    }
}

impl Watch {
    /// Reads along until nothing is written any more, or nothing can be read: then whoever writes reads back, and finds out why.
    async fn follow(&self, shared: &Arc<Shared>, source: Source, from: Position) {
        let stream = source.stream.clone();
        let mut tail = match RabbitTail::open(Arc::clone(shared), source, from).await {
            Ok(tail) => tail,
            Err(error) => return tracing::debug!(stream, %error, "the journal is not read along"),
        };
        self.state.lock().session = tail.sessions();
        loop {
            let idle = self.state.lock().used + limits::RABBITMQ_WATCH_IDLE;
            tokio::select! {
                read = tidegate_backbone::Tail::next(&mut tail, limits::JOURNAL_READ_BYTES) => match read {
                    Ok(batch) => self.state.lock().met(tail.sessions(), &batch.records),
                    Err(error) => return tracing::debug!(stream, %error, "the journal is read along no longer"),
                },
                () = tokio::time::sleep_until(idle) => {
                    if self.state.lock().used.elapsed() >= limits::RABBITMQ_WATCH_IDLE {
                        return;
                    }
                }
            }
        }
    }
}

impl State {
    fn new() -> Self {
        Self { session: 0, compared: 0, waiting: VecDeque::new(), used: Instant::now() }
    }

    fn wait_for(&mut self, frame: &Bytes) -> Option<oneshot::Receiver<Position>> {
        self.used = Instant::now();
        if self.session == 0 || self.compared != self.session {
            return None;
        }
        let (told, position) = oneshot::channel();
        self.waiting.push_back((frame.clone(), told));
        Some(position)
    }

    /// Records were read over that connection.
    fn met(&mut self, session: u64, records: &[Stored]) {
        if session != self.session {
            // Whoever waits may have relied on what the broker has lost since.
            self.session = session;
            self.waiting.clear();
        }
        // Those whose append has failed are waited for by nobody.
        self.waiting.retain(|(_, told)| !told.is_closed());
        for stored in records {
            let Record::Frame(frame) = &stored.record else { continue };
            if let Some(at) = self.waiting.iter().position(|(waited, _)| waited == frame)
                && let Some((_, told)) = self.waiting.remove(at)
            {
                // It may have been given up just now.
                let _ = told.send(stored.position);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(position: u64, frame: &Bytes) -> Stored {
        Stored { position: Position(position), appended_at: 0, record: Record::Frame(frame.clone()) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_position_is_told_after_the_journal_was_compared_over_the_same_connection() {
        let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
        let mut state = State::new();
        assert!(state.wait_for(&one).is_none(), "nothing is read yet");
        state.session = 1;
        assert!(state.wait_for(&one).is_none(), "nothing was compared yet");
        state.compared = 1;
        let (mut first, mut second) = (state.wait_for(&one).unwrap(), state.wait_for(&two).unwrap());
        state.met(1, &[stored(7, &Bytes::from_static(b"of another")), stored(8, &two)]);
        assert_eq!((first.try_recv().ok(), second.try_recv().ok()), (None, Some(Position(8))));
        state.met(1, &[stored(9, &one), stored(10, &one)]);
        assert_eq!(first.try_recv().ok(), Some(Position(9)), "where it stands first");

        // Over another connection those that were on their way are told nothing, and neither are the next ones.
        let mut third = state.wait_for(&one).unwrap();
        state.met(2, &[stored(11, &one)]);
        assert!(third.try_recv().is_err());
        assert!(state.wait_for(&one).is_none());
        state.compared = 2;
        let mut fourth = state.wait_for(&one).unwrap();
        state.met(2, &[stored(12, &one)]);
        assert_eq!(fourth.try_recv().ok(), Some(Position(12)));

        // Nobody waits for what has failed.
        drop(state.wait_for(&one));
        state.met(2, &[]);
        assert!(state.waiting.is_empty());
    }
}
