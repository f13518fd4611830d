//! Where logs begin and end: asked of the leaders of their partitions, never remembered. What is asked while a question is
//! under way is asked together by the next one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use tidegate_backbone::{Error, ErrorKind, Result};
use tidegate_schemas::limits;
use tokio::sync::oneshot;

use super::topics::look;
use crate::context::Context;
use crate::error::{busy, closed, code_of, failed, kind_of, not_found};

/// Begin and end.
pub(crate) type Span = (u64, u64);
/// A topic of the broker and one of its partitions.
pub(crate) type Place = (Arc<str>, i32);

struct Question {
    places: Vec<Place>,
    answer: oneshot::Sender<Result<BTreeMap<Place, Span>>>,
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
        let (questions, asked) = sync_channel(limits::KAFKA_CALLS);
        let thread = std::thread::Builder::new().name("tidegate-kafka-ends".to_owned()).spawn(move || {
            work(&client, &asked);
        });
        let thread = thread.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "cannot start a thread for questions to Kafka").with_source(error)
        })?;
        Ok(Self { questions: Mutex::new(Some(questions)), thread: Mutex::new(Some(thread)) })
    }

    /// Where these logs begin and end, as it was at some moment after this was called. Those that are not there are left out.
    pub(crate) async fn ask(&self, places: Vec<Place>) -> Result<BTreeMap<Place, Span>> {
        if places.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (answer, answered) = oneshot::channel();
        match &*self.questions.lock() {
            None => return Err(closed()),
            Some(questions) => questions.try_send(Question { places, answer }).map_err(|error| match error {
                TrySendError::Full(_) => busy("questions"),
                TrySendError::Disconnected(_) => closed(),
            })?,
        }
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// The same for one log, which must be there.
    pub(crate) async fn one(&self, place: Place, log: &impl fmt::Display) -> Result<Span> {
        let spans = self.ask(vec![place.clone()]).await?;
        spans.get(&place).copied().ok_or_else(|| not_found(&log.to_string()))
    }

    /// Ends the thread. Waits for it: not for a task of the runtime.
    pub(crate) fn close(&self) {
        self.questions.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

fn work(client: &BaseConsumer<Context>, asked: &Receiver<Question>) {
    while let Ok(first) = asked.recv() {
        let mut questions = vec![first];
        questions.extend(asked.try_iter());
        let mut places: Vec<Place> = questions.iter().flat_map(|question| question.places.iter().cloned()).collect();
        places.sort_unstable();
        places.dedup();
        match spans(client, &places) {
            Ok(spans) => {
                for Question { places, answer } in questions {
                    let found = places.into_iter().filter_map(|place| Some((place.clone(), *spans.get(&place)?)));
                    let _ = answer.send(Ok(found.collect()));
                }
            }
            // One log that cannot be asked for must not stand for the others.
            Err(_) if questions.len() > 1 => {
                for Question { places, answer } in questions {
                    if !answer.is_closed() {
                        let _ = answer.send(spans(client, &places));
                    }
                }
            }
            Err(error) => {
                let question = questions.remove(0);
                let _ = question.answer.send(Err(error));
            }
        }
    }
}

/// Asks until every partition has answered, or the time is over.
fn spans(client: &BaseConsumer<Context>, places: &[Place]) -> Result<BTreeMap<Place, Span>> {
    // The end first: what begins behind it by then was trimmed meanwhile, and the end is where it begins.
    let ends = ask(client, places, Offset::End)?;
    let begins = ask(client, places, Offset::Beginning)?;
    client.context().health.up();
    Ok(begins
        .into_iter()
        .filter_map(|(place, begin)| {
            let end = *ends.get(&place)?;
            Some((place, (begin, end.max(begin))))
        })
        .collect())
}

fn ask(client: &BaseConsumer<Context>, places: &[Place], which: Offset) -> Result<BTreeMap<Place, u64>> {
    let mut found = BTreeMap::new();
    let mut open: Vec<Place> = places.to_vec();
    let mut last = None;
    // Leaders move: whoever is not one any more says so, and the client asks anew who is.
    for attempt in 0..ATTEMPTS {
        let mut list = TopicPartitionList::with_capacity(open.len());
        for (topic, partition) in &open {
            let _ = list.add_partition_offset(topic, *partition, which);
        }
        match client.offsets_for_times(list, limits::KAFKA_ASK_TIMEOUT) {
            Ok(list) => {
                open.retain(|(topic, partition)| {
                    let Some(element) = list.find_partition(topic, *partition) else { return false };
                    match (element.error(), element.offset()) {
                        (Ok(()), Offset::Offset(offset)) => {
                            let offset = u64::try_from(offset).unwrap_or_default();
                            found.insert((Arc::clone(topic), *partition), offset);
                            false
                        }
                        (Err(error), _) => {
                            last = Some(error);
                            true
                        }
                        (Ok(()), _) => true,
                    }
                });
            }
            // One that is not there must not stand for the others.
            Err(error) if is_gone(&error) && open.len() > 1 => {
                for place in open {
                    found.extend(ask(client, &[place], which)?);
                }
                return Ok(found);
            }
            Err(error) if is_gone(&error) || may_pass(&error) => last = Some(error),
            Err(error) => return Err(failed("tell where logs end", error, false)),
        }
        if open.is_empty() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(10 << attempt));
        // The broker has the last word on what is gone, and the client hears of new leaders by the same question.
        let mut topics: BTreeMap<Arc<str>, i32> = BTreeMap::new();
        for (topic, _) in &open {
            if !topics.contains_key(topic) {
                let there = look(client, topic)?.map_or(0, |there| there.partitions);
                topics.insert(Arc::clone(topic), there);
            }
        }
        open.retain(|(topic, partition)| topics.get(topic).is_some_and(|partitions| partition < partitions));
        if open.is_empty() {
            return Ok(found);
        }
    }
    let unknown = last.filter(|error| !is_gone(error)).unwrap_or(KafkaError::OffsetFetch(Code::LeaderNotAvailable));
    Err(failed(&format!("tell where {} of the logs end", open.len()), unknown, false))
}

/// With the waits between them two and a half seconds: so long a busy broker may take to lead topics that it has just made.
const ATTEMPTS: u32 = 8;

/// Whether another leader may be found, or the same one be ready.
fn may_pass(error: &KafkaError) -> bool {
    matches!(
        code_of(error),
        Some(
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::ReplicaNotAvailable
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                | Code::OffsetNotAvailable
        )
    )
}

fn is_gone(error: &KafkaError) -> bool {
    code_of(error).is_some_and(|code| kind_of(code) == ErrorKind::NotFound)
}
