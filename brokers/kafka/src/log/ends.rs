//! Where logs begin and end: asked of the leaders of their partitions, never remembered. What is asked while a question is
//! under way is asked together by the next one.
//!
//! A leader that is not there yet, or not any more, is no answer: a question about its log stays open and is asked again, for
//! at most [`limits::KAFKA_LEADER_TIMEOUT`], while other questions are answered. What an answer means is in `leaders`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::Offset;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use tidegate_backbone::{Error, ErrorKind, Result};
use tidegate_schemas::limits;
use tokio::sync::oneshot;

use super::leaders::{Leaders, Told, tell};
use crate::context::Context;
use crate::error::{busy, closed, failed, not_found};

/// Begin and end.
pub(crate) type Span = (u64, u64);
/// A topic of the broker and one of its partitions.
pub(crate) type Place = (Arc<str>, i32);
/// Where the logs begin and end that are there.
type Spans = BTreeMap<Place, Span>;

/// How long a question waits before it is asked again, the first time; each time twice as long, up to the second figure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

struct Question {
    places: Vec<Place>,
    /// From where: the beginning, or the first record of that time in milliseconds.
    from: Offset,
    answer: oneshot::Sender<Result<Spans>>,
    asked: Instant,
    /// How often a leader was not ready.
    tries: u32,
    due: Instant,
}

/// See the module.
pub(crate) struct Ends {
    questions: Mutex<Option<SyncSender<Question>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Ends {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ends").finish_non_exhaustive()
    }
}

impl Ends {
    pub(crate) fn new(client: Arc<BaseConsumer<Context>>) -> Result<Self> {
        Self::with(client, limits::KAFKA_LEADER_TIMEOUT)
    }

    fn with(client: impl Leaders + Send + 'static, patience: Duration) -> Result<Self> {
        let (questions, asked) = sync_channel(limits::KAFKA_CALLS);
        let thread = std::thread::Builder::new().name("tidegate-kafka-ends".to_owned()).spawn(move || {
            work(&client, &asked, patience);
        });
        let thread = thread.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "cannot start a thread for questions to Kafka").with_source(error)
        })?;
        Ok(Self { questions: Mutex::new(Some(questions)), thread: Mutex::new(Some(thread)) })
    }

    /// Where these logs begin and end, as it was at some moment after this was called. Those that are not there are left out.
    pub(crate) async fn ask(&self, places: Vec<Place>) -> Result<Spans> {
        self.put(places, Offset::Beginning).await
    }

    /// The same for one log, which must be there.
    pub(crate) async fn one(&self, place: Place, log: &impl fmt::Display) -> Result<Span> {
        let spans = self.ask(vec![place.clone()]).await?;
        spans.get(&place).copied().ok_or_else(|| not_found(&log.to_string()))
    }

    /// The first record of that time or later in a log that must be there; its end, where there is none.
    pub(crate) async fn since(&self, place: Place, unix_milliseconds: u64, log: &impl fmt::Display) -> Result<u64> {
        let time = Offset::Offset(i64::try_from(unix_milliseconds).unwrap_or(i64::MAX));
        let spans = self.put(vec![place.clone()], time).await?;
        let (first, end) = spans.get(&place).copied().ok_or_else(|| not_found(&log.to_string()))?;
        Ok(first.min(end))
    }

    async fn put(&self, places: Vec<Place>, from: Offset) -> Result<Spans> {
        if places.is_empty() {
            return Ok(Spans::new());
        }
        let (answer, answered) = oneshot::channel();
        let now = now();
        let question = Question { places, from, answer, asked: now, tries: 0, due: now };
        match &*self.questions.lock() {
            None => return Err(closed()),
            Some(questions) => questions.try_send(question).map_err(|error| match error {
                TrySendError::Full(_) => busy("questions"),
                TrySendError::Disconnected(_) => closed(),
            })?,
        }
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Ends the thread; what is not answered by then is told that this is closed. Waits for it: not for a task of the runtime.
    pub(crate) fn close(&self) {
        self.questions.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a thread outside of the runtime waits is no matter of the clock"
)]
fn now() -> Instant {
    Instant::now()
}

fn work(client: &impl Leaders, asked: &Receiver<Question>, patience: Duration) {
    let mut open: Vec<Question> = Vec::new();
    loop {
        let next = match open.iter().map(|question| question.due).min() {
            None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => asked.recv_timeout(due.saturating_duration_since(now())),
        };
        match next {
            Ok(question) => open.push(question),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // As many as can wait at all: what is open is bounded as the queue is.
        open.extend(asked.try_iter().take(limits::KAFKA_CALLS.saturating_sub(open.len())));
        // Whoever asked may be gone, and then nobody needs the answer.
        open.retain(|question| !question.answer.is_closed());
        let moment = now();
        let (due, later): (Vec<_>, Vec<_>) = open.into_iter().partition(|question| question.due <= moment);
        open = later;
        // New questions by themselves: one that was asked in vain before may take long again.
        let (again, new): (Vec<_>, Vec<_>) = due.into_iter().partition(|question| question.tries > 0);
        for questions in [new, again] {
            for together in alike(questions) {
                open.extend(answer(client, together, patience));
            }
        }
    }
}

/// Questions that are asked together: those from the beginning; each other one by itself.
fn alike(questions: Vec<Question>) -> Vec<Vec<Question>> {
    let (begins, times): (Vec<_>, Vec<_>) =
        questions.into_iter().partition(|question| question.from == Offset::Beginning);
    let mut all: Vec<Vec<Question>> = times.into_iter().map(|question| vec![question]).collect();
    if !begins.is_empty() {
        all.insert(0, begins);
    }
    all
}

/// Answers what can be answered; gives back what is to be asked again.
fn answer(client: &impl Leaders, questions: Vec<Question>, patience: Duration) -> Vec<Question> {
    let Some(from) = questions.first().map(|question| question.from) else { return Vec::new() };
    let known = questions.iter().any(|question| question.tries > 0);
    let mut places: Vec<Place> = questions.iter().flat_map(|question| question.places.iter().cloned()).collect();
    places.sort_unstable();
    places.dedup();
    // The end first: what begins behind it by then was trimmed meanwhile, and the end is where it begins. And what is
    // appended after it may be of any time.
    let ends = tell(client, &places, Offset::End, known);
    places.retain(|place| matches!(ends.get(place), Some(Told::At(_))));
    let begins = tell(client, &places, from, false);
    let mut again = Vec::new();
    for mut question in questions {
        match sum_up(&question, &ends, &begins) {
            Ok(spans) => {
                let _ = question.answer.send(Ok(spans));
            }
            Err((error, true)) if question.asked.elapsed() < patience => {
                tracing::debug!(%error, "a leader of Kafka is not ready, and is asked again");
                let wait = AGAIN.0.saturating_mul(1 << question.tries.min(16)).min(AGAIN.1);
                question.tries += 1;
                question.due = now() + wait;
                again.push(question);
            }
            Err((error, _)) => {
                let what = match &*question.places {
                    [(topic, partition)] => format!("tell where {topic} partition {partition} ends"),
                    places => format!("tell where {} logs end", places.len()),
                };
                let _ = question.answer.send(Err(failed(&what, error, false)));
            }
        }
    }
    again
}

/// The answer to one question; else what stands in its way, and whether that may pass.
fn sum_up(
    question: &Question,
    ends: &BTreeMap<Place, Told>,
    begins: &BTreeMap<Place, Told>,
) -> std::result::Result<Spans, (KafkaError, bool)> {
    let mut spans = Spans::new();
    let mut not_yet = None;
    for place in &question.places {
        match (ends.get(place), begins.get(place)) {
            (Some(Told::At(end)), Some(Told::At(begin))) => {
                let end = if question.from == Offset::Beginning { *end.max(begin) } else { *end };
                spans.insert(place.clone(), (*begin, end));
            }
            (Some(Told::Refused(error)), _) | (_, Some(Told::Refused(error))) => return Err((error.clone(), false)),
            (Some(Told::NotYet(error)), _) | (_, Some(Told::NotYet(error))) => not_yet = Some(error.clone()),
            _ => {}
        }
    }
    not_yet.map_or(Ok(spans), |error| Err((error, true)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rdkafka::error::RDKafkaErrorCode as Code;

    use super::super::topics::There;
    use super::*;

    /// A broker that was asked to create its topics a moment ago: it names leaders that are not ready yet.
    #[derive(Default)]
    struct Young {
        asked: AtomicU32,
        ready_after: u32,
        refuses: Option<Code>,
    }

    impl Leaders for Arc<Young> {
        fn offsets(&self, places: &[Place], which: Offset) -> std::result::Result<Vec<(Place, Offset)>, KafkaError> {
            if places.iter().any(|(topic, _)| &**topic == "gone") {
                return Err(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition));
            }
            if places.iter().any(|(topic, _)| &**topic == "young")
                && let Some(code) = self.refuses
                && self.asked.fetch_add(1, Ordering::Relaxed) < self.ready_after
            {
                return Err(KafkaError::MetadataFetch(code));
            }
            let at = if which == Offset::End { 7 } else { 3 };
            Ok(places.iter().map(|place| (place.clone(), Offset::Offset(at))).collect())
        }

        fn look(&self, topic: &str) -> std::result::Result<Option<There>, KafkaError> {
            Ok((topic != "gone").then(|| There { leaders: vec![1, 1], replicas: 1 }))
        }
    }

    fn place(topic: &str) -> Place {
        (Arc::from(topic), 0)
    }

    fn young(refuses: Code, ready_after: u32) -> Arc<Young> {
        Arc::new(Young { refuses: Some(refuses), ready_after, ..Young::default() })
    }

    #[tokio::test]
    async fn a_leader_that_is_not_ready_is_asked_again() {
        let passing = [
            Code::NotLeaderForPartition,
            Code::LeaderNotAvailable,
            Code::UnknownTopicOrPartition,
            Code::UnknownPartition,
            Code::FencedLeaderEpoch,
            Code::KafkaStorageError,
        ];
        let checks = passing.map(|code| async move {
            // Ready after seconds, as on a busy machine.
            let ends = Ends::with(young(code, 12), limits::KAFKA_LEADER_TIMEOUT).unwrap();
            assert_eq!(ends.one(place("young"), &"young").await.unwrap(), (3, 7), "{code:?}");
            ends.close();
            // A time is looked up the same way.
            let ends = Ends::with(young(code, 4), limits::KAFKA_LEADER_TIMEOUT).unwrap();
            assert_eq!(ends.since(place("young"), 5, &"young").await.unwrap(), 3, "{code:?}");
            ends.close();
        });
        futures_util::future::join_all(checks).await;
    }

    #[tokio::test]
    async fn a_leader_that_is_not_ready_holds_up_nobody_else() {
        let ends = Ends::with(young(Code::NotLeaderForPartition, u32::MAX), limits::KAFKA_LEADER_TIMEOUT).unwrap();
        let mut waits = std::pin::pin!(ends.ask(vec![place("other"), place("young")]));
        for _ in 0..20 {
            assert!(futures_util::poll!(waits.as_mut()).is_pending(), "it was answered without a leader");
            // Together with one that is not there.
            let spans = ends.ask(vec![place("other"), place("gone")]).await.unwrap();
            assert_eq!(spans.into_iter().collect::<Vec<_>>(), [(place("other"), (3, 7))]);
        }
        ends.close();
        assert_eq!(waits.await.unwrap_err().kind(), &ErrorKind::Closed);
    }

    #[tokio::test]
    async fn a_question_without_an_answer_ends() {
        let young_for_good = young(Code::NotLeaderForPartition, u32::MAX);
        let ends = Ends::with(Arc::clone(&young_for_good), Duration::from_millis(200)).unwrap();
        let error = ends.one(place("young"), &"young").await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
        assert!(young_for_good.asked.load(Ordering::Relaxed) > 1, "it is asked again before that");
        assert_eq!(ends.one(place("gone"), &"gone").await.unwrap_err().kind(), &ErrorKind::NotFound);
        ends.close();
        // What does not pass is told at once.
        let refusing = young(Code::TopicAuthorizationFailed, u32::MAX);
        let ends = Ends::with(Arc::clone(&refusing), limits::KAFKA_LEADER_TIMEOUT).unwrap();
        assert_eq!(ends.one(place("young"), &"young").await.unwrap_err().kind(), &ErrorKind::Denied);
        assert_eq!(refusing.asked.load(Ordering::Relaxed), 1);
        ends.close();
    }
}
