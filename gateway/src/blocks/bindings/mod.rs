//! Input bindings: messages of queues become events of topics. Output bindings are sinks ([`crate::sink::Outputs`]).
//!
//! A queue is read by one gateway of a cluster at a time, the owner of the slot that the binding's name belongs to, as
//! `docs/bindings.md` says it to users:
//!
//! | | promise |
//! |---|---|
//! | durable first | a message is acknowledged when the log has acknowledged its event, never earlier |
//! | at least once | what is not acknowledged comes again, to whoever owns the slot then |
//! | ordered | of the messages with one key one is on its way to the log at a time, in the order of the queue |
//! | bounded | unacknowledged messages are as many as the broker gives ahead |
//! | held | what the log does not take is kept and published again; nothing is given back meanwhile, because queues with a limit of deliveries would drop it |

mod ask;
mod input;
mod standing;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tidegate_backbone::Environment;
use tidegate_backbone::queues::{QueueBrokers, bound};
use tidegate_backbone::slot::Journal;
use tidegate_resources::{Binding, Direction, Resources};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::cluster::Cluster;
use super::pubsub::PubSub;
pub use ask::{ResumeError, Shown};
use input::Reader;
use standing::Standing;
pub use standing::{Counts, State};

/// The block. Clones share everything.
#[derive(Clone, Debug)]
pub struct Bindings(Arc<Inner>);

struct Inner {
    pubsub: PubSub,
    brokers: QueueBrokers,
    slots: u32,
    environment: Environment,
    cluster: OnceLock<Cluster>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    declared: BTreeMap<String, Arc<Binding>>,
    /// The slots that are owned here.
    owned: HashMap<u32, Journal>,
    /// The inputs that run here.
    running: HashMap<String, Running>,
}

/// An input that runs.
#[derive(Debug)]
struct Running {
    binding: Arc<Binding>,
    epoch: u64,
    standing: Arc<Standing>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Bindings {
    /// None yet. Inputs run in `environment` once slots are owned, of which there are `slots`.
    pub fn new(pubsub: PubSub, brokers: QueueBrokers, slots: u32, environment: Environment) -> Self {
        Self(Arc::new(Inner { pubsub, brokers, slots, environment, cluster: OnceLock::new(), known: Mutex::default() }))
    }

    /// Puts what the files declare in place of what they declared before. What stayed as it was goes on.
    pub fn apply(&self, resources: &Resources) {
        let declared = resources.bindings.iter().map(|binding| (binding.name.clone(), Arc::new(binding.clone())));
        self.0.known.lock().declared = declared.collect();
        self.settle();
    }

    /// Reads the queues of a slot from now on.
    pub fn acquired(&self, journal: Journal) {
        self.0.known.lock().owned.insert(journal.slot(), journal);
        self.settle();
    }

    /// Reads them no more; returns when what was on its way has ended.
    pub async fn releasing(&self, slot: u32) {
        self.0.known.lock().owned.remove(&slot);
        let ended = self.settle();
        futures_util::future::join_all(ended.iter().map(CancellationToken::cancelled)).await;
    }

    /// The slot has another owner.
    pub fn lost(&self, slot: u32) {
        self.0.known.lock().owned.remove(&slot);
        self.settle();
    }

    /// The slot of a binding, whose owner reads its queue.
    fn slot_of(&self, name: &str) -> u32 {
        bound::slot_of_reader(name, self.0.slots)
    }

    /// Begins and ends inputs, so that those run that are declared and whose slots are owned here. Gives the ends of those that
    /// are to end.
    fn settle(&self) -> Vec<CancellationToken> {
        let mut known = self.0.known.lock();
        let Known { declared, owned, running } = &mut *known;
        let wanted = |name: &str| {
            let binding = declared.get(name)?;
            let Direction::Input(_) = &binding.direction else { return None };
            Some((binding, owned.get(&self.slot_of(name))?))
        };
        let mut ends = HashMap::new();
        running.retain(|name, running| {
            let stays = wanted(name)
                .is_some_and(|(binding, journal)| **binding == *running.binding && journal.epoch() == running.epoch);
            if !stays {
                running.stop.cancel();
                ends.insert(name.clone(), running.ended.clone());
            }
            stays
        });
        for name in declared.keys() {
            if running.contains_key(name) {
                continue;
            }
            let Some((binding, journal)) = wanted(name) else { continue };
            let Direction::Input(input) = &binding.direction else { continue };
            info!(binding = name, broker = binding.broker, topic = %input.topic, "an input binding begins");
            let stop = self.0.environment.stopping().child_token();
            let (ended, standing) = (CancellationToken::new(), Arc::new(Standing::new()));
            let reader = Reader {
                pubsub: self.0.pubsub.clone(),
                brokers: self.0.brokers.clone(),
                binding: Arc::clone(binding),
                input: input.clone(),
                journal: journal.clone(),
                standing: Arc::clone(&standing),
                environment: self.0.environment.clone(),
                stop: stop.clone(),
            };
            let (end, before) = (ended.clone(), ends.get(name).cloned());
            self.0.environment.spawn(async move {
                let _end = end.drop_guard();
                // What it was before still has messages in hand.
                if let Some(before) = before {
                    before.cancelled().await;
                }
                reader.run().await;
            });
            let running_now = Running { binding: Arc::clone(binding), epoch: journal.epoch(), standing, stop, ended };
            running.insert(name.clone(), running_now);
        }
        ends.into_values().collect()
    }
}
