//! Questions to all owners, and what their answers add up to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::DeserializeOwned;
use tidegate_routing::partition::partition_of;
use tidegate_schemas::Event;
use tracing::warn;

use super::{Answered, Asked, Owners, Peers, Question, SERVICE, Whole};
use crate::catalogue::{ChangeError, Topic};
use crate::consume::engine::{Consume, Standing, Status};
use crate::consume::keys::{Head, PausedKey, Which};
use crate::consume::letters::{DeadLetter, Group, LetterId, Redrive, Redriven, Selection};
use crate::environment::milliseconds;
use crate::error::Result;
use crate::lane::NodeId;
use crate::request::{Requests, To};
use crate::slot::placement::{delivery_slots, slot_of};

/// The most often that dead letters are asked for again because an owner could not give all at once.
const PARTS: u32 = 100;

impl Consume {
    /// Asks the owners of other slots too from now on, and answers them.
    pub fn join(self: &Arc<Self>, requests: &Requests, owners: Arc<dyn Owners>) {
        let peers = Arc::new(Peers { requests: requests.clone(), owners });
        self.shared.peers.store(Some(peers));
        requests.serve(SERVICE, Arc::new(super::answers::Answers::new(self)));
    }

    /// Puts a question to every other process that owns slots. Gives their answers, and the slots that nobody spoke for.
    pub(in crate::consume) async fn ask<T: DeserializeOwned>(
        &self,
        question: impl Fn(usize) -> Question,
    ) -> (Vec<T>, Vec<u32>) {
        let mine = self.slots();
        let mut missing: HashSet<u32> = delivery_slots(self.shared.slots).filter(|slot| !mine.contains(slot)).collect();
        let Some(peers) = self.shared.peers.load_full().filter(|_| !missing.is_empty()) else {
            return (Vec::new(), sorted(missing));
        };
        let nodes = peers.nodes(|slot| missing.contains(&slot));
        let catalogue = self.shared.catalogue.view().revision;
        let calls = nodes.iter().enumerate().map(|(index, node)| {
            let asked = Asked { catalogue, question: question(index + 1) };
            let body = Bytes::from(serde_json::to_vec(&asked).expect("questions are structs of strings and numbers"));
            peers.requests.call(To::Node(*node), SERVICE, body, asked.question.timeout())
        });
        let mut answers = Vec::new();
        for (node, outcome) in nodes.iter().zip(futures_util::future::join_all(calls).await) {
            let read = outcome
                .map_err(|error| error.to_string())
                .and_then(|body| serde_json::from_slice::<Answered<T>>(&body).map_err(|error| error.to_string()));
            match read {
                Ok(Answered { slots, answer }) => {
                    slots.iter().for_each(|slot| {
                        missing.remove(slot);
                    });
                    answers.push(answer);
                }
                Err(error) => warn!(%node, error, "the owner of some slots does not answer for their deliveries"),
            }
        }
        (answers, sorted(missing))
    }

    /// The slot whose owner delivers an event of a topic.
    pub fn slot_of(&self, topic: &Topic, event: &Event) -> u32 {
        let partition = partition_of(event, topic.spec.key_from, topic.partitions());
        slot_of(topic.spec.name.as_str(), partition, self.shared.slots)
    }

    /// The other process that owns a slot, where one is known that does.
    pub fn other_owner(&self, slot: u32) -> Option<NodeId> {
        self.shared.peers.load_full()?.nodes(|each| each == slot).pop()
    }

    /// How many processes besides this one own slots of delivery.
    fn others(&self) -> usize {
        self.shared.peers.load_full().map_or(0, |peers| peers.nodes(|slot| slot > 0).len())
    }

    /// How subscriptions stand in the whole cluster.
    pub async fn statuses(&self, uids: &[u64]) -> Whole<HashMap<u64, Status>> {
        let (answers, missing) = self.ask::<HashMap<u64, Status>>(|_| Question::Statuses { uids: uids.to_vec() }).await;
        let mut value = self.statuses_here(uids).await;
        for (uid, status) in answers.into_iter().flatten() {
            match value.get_mut(&uid) {
                Some(known) => known.add(status),
                None => {
                    value.insert(uid, status);
                }
            }
        }
        Whole { value, missing }
    }

    /// Keys of a subscription that stand still, at most `limit`.
    pub async fn paused_keys(&self, uid: u64, limit: usize) -> Result<Whole<Vec<PausedKey>>> {
        let (answers, missing) = self.ask::<Vec<PausedKey>>(|_| Question::PausedKeys { uid, limit }).await;
        let mut value = self.paused_keys_here(uid, limit).await?;
        value.extend(answers.into_iter().flatten());
        value.truncate(limit);
        Ok(Whole { value, missing })
    }

    /// Lets keys of a subscription go on that stand still; gives how many. It is durable when this returns.
    pub async fn resume_keys(
        &self,
        name: &ByteString,
        which: &Which,
        head: Head,
    ) -> std::result::Result<Whole<usize>, ChangeError> {
        let here = self.resume_keys_here(name, which, head).await?;
        let question = |_| Question::ResumeKeys { name: name.to_string(), which: which.clone(), head };
        let (answers, missing) = self.ask::<usize>(question).await;
        Ok(Whole { value: here + answers.into_iter().sum::<usize>(), missing })
    }

    /// Dead letters of a subscription that were neither redriven nor dropped and that the selection takes, in the order of
    /// partitions and positions, after `after` and at most `limit`.
    pub async fn dead_letters(
        &self,
        name: &ByteString,
        selection: &Selection,
        after: Option<LetterId>,
        limit: usize,
    ) -> std::result::Result<Whole<Vec<DeadLetter>>, ChangeError> {
        let mut whole = Whole { value: Vec::new(), missing: Vec::new() };
        let mut after = after;
        for _ in 0..PARTS {
            let left = limit - whole.value.len();
            let question =
                |_| Question::DeadLetters { name: name.to_string(), selection: selection.clone(), after, limit: left };
            let (answers, missing) = self.ask::<(Vec<DeadLetter>, bool)>(question).await;
            whole.missing = missing;
            // An owner that could not give all has given everything up to its last one; behind that the order is not known.
            let known_to =
                answers.iter().filter(|(_, cut)| *cut).filter_map(|(letters, _)| Some(letters.last()?.id)).min();
            let mut letters = self.dead_letters_here(name, selection, after, left).await?;
            letters.extend(answers.into_iter().flat_map(|(letters, _)| letters));
            letters.retain(|letter| known_to.is_none_or(|last| letter.id <= last));
            letters.sort_by_key(|letter| letter.id);
            letters.dedup_by_key(|letter| letter.id);
            letters.truncate(left);
            after = letters.last().map(|letter| letter.id).or(after);
            whole.value.append(&mut letters);
            if known_to.is_none() || whole.value.len() >= limit {
                break;
            }
        }
        Ok(whole)
    }

    /// The dead letters that a selection takes, counted by what they have in common, the most frequent first.
    pub async fn dead_letter_groups(
        &self,
        name: &ByteString,
        selection: &Selection,
    ) -> std::result::Result<Whole<Vec<Group>>, ChangeError> {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        let question = |_| Question::Groups { name: name.to_string(), selection: selection.clone() };
        let (answers, missing) = self.ask::<Vec<Group>>(question).await;
        let here = self.dead_letter_groups_here(name, selection).await?;
        for group in here.into_iter().chain(answers.into_iter().flatten()) {
            match groups.get_mut(&group.kind.to_string()) {
                Some(known) => known.add(group),
                None => {
                    groups.insert(group.kind.to_string(), group);
                }
            }
        }
        let mut value: Vec<Group> = groups.into_values().collect();
        value.sort_by_key(|group| std::cmp::Reverse(group.count));
        Ok(Whole { value, missing })
    }

    /// Sends the dead letters that a selection takes to their subscription again, and to no other. The rate is that of all
    /// owners together.
    pub async fn redrive(
        &self,
        name: &ByteString,
        selection: &Selection,
        redrive: &Redrive,
    ) -> std::result::Result<Whole<Redriven>, ChangeError> {
        let owners = u32::try_from(self.others() + 1).unwrap_or(u32::MAX);
        let interval = redrive.interval.map(|interval| interval.saturating_mul(owners));
        let offset = |index: usize| {
            redrive.interval.unwrap_or_default().saturating_mul(u32::try_from(index).unwrap_or(u32::MAX))
        };
        let here = Redrive { interval, ..redrive.clone() };
        let mut value = self.redrive_here(name, selection, &here, Duration::ZERO).await?;
        let question = |index| Question::Redrive {
            name: name.to_string(),
            selection: selection.clone(),
            edits: redrive.edits.clone(),
            interval: milliseconds(interval.unwrap_or_default()),
            offset: milliseconds(offset(index)),
            dry: redrive.dry,
        };
        let (answers, missing) = self.ask::<Redriven>(question).await;
        for answer in answers {
            value.ids.extend(answer.ids);
            value.more |= answer.more;
        }
        value.ids.sort_unstable();
        Ok(Whole { value, missing })
    }

    /// Lets go of the dead letters that a selection takes. Gives how many. They stay readable in their topic until it is
    /// trimmed.
    pub async fn drop_dead_letters(
        &self,
        name: &ByteString,
        selection: &Selection,
    ) -> std::result::Result<Whole<usize>, ChangeError> {
        let here = self.drop_here(name, selection).await?;
        let question = |_| Question::Drop { name: name.to_string(), selection: selection.clone() };
        let (answers, missing) = self.ask::<usize>(question).await;
        Ok(Whole { value: here + answers.into_iter().sum::<usize>(), missing })
    }
}

impl Status {
    /// Takes in how the same subscription stands at another owner.
    fn add(&mut self, other: Self) {
        if self.standing == Standing::Active {
            self.standing = other.standing;
        }
        self.queued += other.queued;
        self.parked += other.parked;
        self.redriving += other.redriving;
        self.paused_keys += other.paused_keys;
        self.in_flight += other.in_flight;
        self.behind += other.behind;
        self.trimmed += other.trimmed;
    }
}

impl Group {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.first_at = self.first_at.min(other.first_at);
        if other.last_at > self.last_at {
            self.last_at = other.last_at;
            self.example = other.example;
            self.detail = other.detail;
        }
    }
}

fn sorted(slots: HashSet<u32>) -> Vec<u32> {
    let mut slots: Vec<u32> = slots.into_iter().collect();
    slots.sort_unstable();
    slots
}
