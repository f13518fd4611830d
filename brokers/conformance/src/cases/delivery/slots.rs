//! Partitions that are spread over slots, and slots that move from one process to another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_backbone::Position;
use tidegate_backbone::catalogue::{ChangeError, SubscriptionSpec};
use tidegate_backbone::consume::{Attempt, Delivery, Start};
use tidegate_backbone::slot::placement::{delivery_slots, slot_of};
use tidegate_backbone::slot::{CommitError, Journal};

use crate::clock::HeldClock;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, Sink, event, event_of, events, ids, subscription};

fn number(delivery: &Delivery) -> Result<usize, Failure> {
    Ok(delivery.event().id().parse()?)
}

pub(super) async fn spread(fixture: Arc<dyn Fixture>) -> Outcome {
    const KEYS: usize = 40;
    const EVENTS: usize = 800;
    let clock = Arc::<HeldClock>::default();
    let process = Process::start(&fixture, &clock).await?;
    let topic = process.topic("orders", 12).await?;
    let slots: BTreeSet<u32> = (0..12).map(|partition| slot_of("orders", partition, process.slots())).collect();
    holds("its partitions are spread", process.slots() < 3 || slots.len() > 1, slots)?;
    for name in ["one", "two", "three"] {
        process.subscribe(subscription(name, "orders"), Start::Latest).await?;
    }
    process.publish_all(&topic, events(0..EVENTS, KEYS)).await?;
    process.stop().await;
    let mut seen = BTreeMap::new();
    // Half of it before a restart and half behind it.
    for half in 1..=2 {
        let process = Process::start(&fixture, &clock).await?;
        for name in ["one", "two", "three"] {
            let sink = process.resume(name)?;
            let next: &mut Vec<usize> = seen.entry(name).or_insert_with(|| (0..KEYS).collect());
            for _ in 0..EVENTS / 2 {
                let delivery = sink.next().await?;
                let number = number(&delivery)?;
                same("the next of its key", number, next[number % KEYS])?;
                next[number % KEYS] += KEYS;
                delivery.done(&Attempt::default());
            }
            if half == 2 {
                sink.nothing("after all events").await?;
            }
        }
        process.stop().await;
    }
    Ok(())
}

/// Takes every delivery slot over from its owner, which is told nothing.
async fn take_over(process: &Process) -> Result<Vec<Journal>, Failure> {
    let mut journals = Vec::new();
    for slot in delivery_slots(process.slots()) {
        journals.push(process.own(slot).await?);
    }
    Ok(journals)
}

/// The deliveries of a subscription in a process that follows another.
async fn followed(process: &Process, name: &str) -> Result<Sink, Failure> {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            match process.resume(name) {
                Ok(sink) => return sink,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    });
    waited.await.map_err(|_| Failure::late(format!("expected that {name} comes, which another process created")))
}

pub(super) async fn elsewhere(fixture: Arc<dyn Fixture>) -> Outcome {
    let owner = Process::start(&fixture, &Arc::default()).await?;
    let other = owner.beside(&fixture).await?;
    let topic = owner.topic("orders", 4).await?;
    let before = owner.subscribe(subscription("before", "orders"), Start::Latest).await?;
    owner.publish_all(&topic, events(0..100, 10)).await?;
    same("at first", before.take(100).await?.len(), 100)?;
    while other.consume.catalogue().topic("orders").is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Made by a process that owns nothing, delivered by the one that owns the partitions.
    for (name, start) in [("latest", Start::Latest), ("earliest", Start::Earliest)] {
        other.consume.create_subscription(SubscriptionSpec { from: start, ..subscription(name, "orders") }).await?;
    }
    owner.publish_all(&topic, events(100..150, 10)).await?;
    for (name, first) in [("latest", 100), ("earliest", 0)] {
        let sink = followed(&owner, name).await?;
        let mut seen: Vec<usize> =
            sink.take(150 - first).await?.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
        seen.sort_unstable();
        same(name, seen, (first..150).collect())?;
        sink.nothing("after all events").await?;
    }
    same("of the one before", before.take(50).await?.len(), 50)?;
    // Changed there, it goes on here from where it was.
    let mut spec = subscription("latest", "orders");
    spec.max_in_flight = 3;
    other.consume.update_subscription(spec).await?;
    let sink = loop {
        let sink = followed(&owner, "latest").await?;
        if sink.consumer.subscription().spec.max_in_flight == 3 {
            break sink;
        }
        drop(sink);
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    owner.publish_all(&topic, events(150..200, 10)).await?;
    let held = sink.hold(3).await?;
    sink.nothing("beyond what may be out").await?;
    let mut seen: Vec<usize> = held.iter().map(number).collect::<Result<_, _>>()?;
    held.into_iter().for_each(|delivery| delivery.done(&Attempt::default()));
    seen.extend(sink.take(47).await?.iter().map(|id| id.parse()).collect::<Result<Vec<usize>, _>>()?);
    seen.sort_unstable();
    same("after the change", seen, (150..200).collect())?;
    // Removed there, it ends here, with all that it left.
    other.consume.remove_subscription(&"latest".into()).await?;
    let ended = tokio::time::timeout(Duration::from_secs(60), sink.consumer.next()).await;
    holds("its deliveries end", matches!(ended, Ok(None)), ())
}

pub(super) async fn stands_still(fixture: Arc<dyn Fixture>) -> Outcome {
    let clock = Arc::<HeldClock>::default();
    let stopped = Process::start(&fixture, &clock).await?;
    let topic = stopped.topic("orders", 3).await?;
    let sink = stopped.subscribe(subscription("s", "orders"), Start::Latest).await?;
    stopped.publish_all(&topic, events(0..60, 0)).await?;
    let settled: BTreeSet<String> = sink.take(20).await?.into_iter().collect();
    stopped.checkpointed().await;
    let held = sink.hold(10).await?;
    let out: BTreeSet<String> = held.iter().map(|delivery| delivery.event().id().to_string()).collect();

    // It stands still: another owner takes over, and nobody has told it.
    let next = stopped.beside(&fixture).await?;
    let journals = take_over(&next).await?;
    let again = followed(&next, "s").await?;
    let taken = again.hold(30).await?;
    let seen: BTreeSet<String> = taken.iter().map(|delivery| delivery.event().id().to_string()).collect();
    same("of what was written down", seen.intersection(&settled).count(), 0)?;

    // It goes on and settles what it held, too late.
    held.into_iter().for_each(|delivery| delivery.done(&Attempt::default()));
    stopped.checkpointed().await;
    let mut fenced = 0;
    for journal in stopped.journals.iter().filter(|journal| journals.iter().any(|next| next.slot() == journal.slot())) {
        journal.verify().await.ok();
        fenced += usize::from(matches!(journal.ended().await, CommitError::Fenced { .. }));
    }
    same("slots that refused the old owner", fenced, journals.len())?;

    // Nothing of it has moved where the new owner stands: what it held comes to the owner after that again.
    drop((taken, again));
    let last = stopped.beside(&fixture).await?;
    let _journals = take_over(&last).await?;
    let sink = followed(&last, "s").await?;
    let seen: BTreeSet<String> = sink.take(40).await?.into_iter().collect();
    let late: Vec<&String> = out.difference(&seen).collect();
    holds("no late answer has settled anything", late.is_empty(), late)?;
    same("with what was settled before", seen.union(&settled).count(), 60)
}

pub(super) async fn handed_over(fixture: Arc<dyn Fixture>) -> Outcome {
    let first = Process::start(&fixture, &Arc::default()).await?;
    let second = first.beside(&fixture).await?;
    let topic = first.topic("orders", 4).await?;
    let sink = first.subscribe(subscription("s", "orders"), Start::Latest).await?;
    first.publish_all(&topic, events(0..100, 20)).await?;
    let settled: BTreeSet<String> = sink.take(50).await?.into_iter().collect();
    let held = sink.hold(5).await?;
    let out: BTreeSet<String> = held.iter().map(|delivery| delivery.event().id().to_string()).collect();
    for slot in delivery_slots(first.slots()) {
        first.consume.release(slot).await;
        first.journals[slot as usize].close().await;
    }
    same("slots that are delivered", first.consume.slots(), Vec::new())?;
    sink.nothing("of slots that were given up").await?;
    let void = held.iter().filter(|delivery| delivery.is_void()).count();
    same("late answers that will have no effect", void, 5)?;
    held.into_iter().for_each(|delivery| delivery.done(&Attempt::default()));

    let _journals = take_over(&second).await?;
    let other = followed(&second, "s").await?;
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let delivery = other.next().await?;
        same("attempts counted", delivery.attempt(), 1)?;
        seen.insert(delivery.event().id().to_string());
        delivery.done(&Attempt::default());
    }
    other.nothing("of what was settled before").await?;
    holds("what was out comes again", seen.is_superset(&out), &out)?;
    same("of what was settled", seen.intersection(&settled).count(), 0)?;
    same("in all", seen.len() + settled.len(), 100)?;
    // And back, with everything settled.
    let mut journals = Vec::new();
    for slot in delivery_slots(second.slots()) {
        second.consume.release(slot).await;
        journals.push(first.own(slot).await?);
    }
    sink.nothing("of what the other settled").await?;
    first.publish(&topic, event("100", "k")).await?;
    same("what comes", sink.take(1).await?, ids(100..101))
}

/// What takers in several processes have seen, by key in the order in which it came.
#[derive(Default)]
struct Seen {
    by_key: Mutex<BTreeMap<usize, Vec<usize>>>,
    passed_over: AtomicUsize,
    void: AtomicUsize,
    ended: AtomicBool,
}

const KEYS: usize = 16;

impl Seen {
    fn note(&self, number: usize) {
        let mut by_key = self.by_key.lock();
        let of_key = by_key.entry(number % KEYS).or_default();
        // Again from anywhere behind, but never beyond one that was not seen.
        let expected = of_key.iter().max().map_or(number % KEYS, |last| last + KEYS);
        if number > expected {
            self.passed_over.fetch_add(1, Ordering::SeqCst);
        }
        of_key.push(number);
    }

    fn distinct(&self) -> usize {
        self.by_key.lock().values().map(|of_key| of_key.iter().collect::<BTreeSet<_>>().len()).sum()
    }

    /// Takes deliveries until told otherwise; each fifth is held for a while.
    async fn take(self: Arc<Self>, sink: Sink) -> Outcome {
        let mut held: Vec<Delivery> = Vec::new();
        while !self.ended.load(Ordering::SeqCst) {
            let next = tokio::time::timeout(Duration::from_millis(20), sink.consumer.next()).await;
            let settled = match next {
                Ok(Some(delivery)) => {
                    let number = number(&delivery)?;
                    self.note(number);
                    if number % 5 == 0 {
                        held.push(delivery);
                        (held.len() > 6).then(|| held.remove(0))
                    } else {
                        Some(delivery)
                    }
                }
                Ok(None) => break,
                Err(_) => held.pop(),
            };
            if let Some(delivery) = settled {
                self.void.fetch_add(usize::from(delivery.is_void()), Ordering::SeqCst);
                delivery.done(&Attempt::default());
            }
        }
        Ok(())
    }
}

pub(super) async fn moves(fixture: Arc<dyn Fixture>) -> Outcome {
    const ROUNDS: usize = 8;
    const EVENTS: usize = 2_400;
    let first = Arc::new(Process::start(&fixture, &Arc::default()).await?);
    let second = Arc::new(first.beside(&fixture).await?);
    let topic = first.topic("orders", 6).await?;
    let sink = first.subscribe(subscription("s", "orders"), Start::Latest).await?;
    let seen = Arc::<Seen>::default();
    let takers: Vec<_> = [sink, followed(&second, "s").await?]
        .into_iter()
        .map(|sink| first.environment.spawn(Arc::clone(&seen).take(sink)))
        .collect();
    let publisher = {
        let (process, topic) = (Arc::clone(&first), Arc::clone(&topic));
        first.environment.spawn(async move {
            for some in events(0..EVENTS, KEYS).chunks(40) {
                process.publish_all(&topic, some.to_vec()).await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<_, Failure>(())
        })
    };
    let (mut fenced, mut moved) = (0, 0);
    let mut owned: Vec<Journal> = first.journals.clone();
    for round in 0..ROUNDS {
        let (from, to) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        for slot in delivery_slots(first.slots()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let old = owned[slot as usize].clone();
            if round % 4 < 2 {
                from.consume.release(slot).await;
                old.close().await;
                owned[slot as usize] = to.own(slot).await?;
            } else {
                // Both believe to own it for a moment.
                owned[slot as usize] = to.own(slot).await?;
                old.verify().await.ok();
                fenced += usize::from(matches!(old.ended().await, CommitError::Fenced { .. }));
                from.consume.lose(slot);
            }
            moved += 1;
        }
    }
    publisher.await??;
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while seen.distinct() < EVENTS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let complete = waited.await.is_ok();
    seen.ended.store(true, Ordering::SeqCst);
    for taker in takers {
        taker.await??;
    }
    holds("nothing is lost", complete, (seen.distinct(), EVENTS, moved))?;
    same("events that were passed over", seen.passed_over.load(Ordering::SeqCst), 0)?;
    // The control: there were owners to be refused, or the case would show nothing.
    holds("superseded owners were refused", fenced > 0, (fenced, moved, seen.void.load(Ordering::SeqCst)))
}

pub(super) async fn created_amid_deletion(fixture: Arc<dyn Fixture>) -> Outcome {
    let owner = Process::start(&fixture, &Arc::default()).await?;
    let other = owner.beside(&fixture).await?;
    let topic = owner.topic("orders", 2).await?;
    owner.publish_all(&topic, events(0..10, 5)).await?;
    let there = async |wanted: bool| {
        while other.consume.catalogue().topic("orders").is_some() != wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    there(true).await;
    owner.log.hold_deletes(true);
    let deletes = owner.consume.delete_topic(&topic.spec.name);
    let creates = async {
        there(false).await;
        // The logs are still there, and about to go.
        let again = loop {
            match other.consume.create_topic(topic.spec.clone()).await {
                Err(ChangeError::Deleting { .. }) => {}
                created => break created?.0,
            }
        };
        other.publish_all(&again, events(10..15, 5)).await?;
        Ok::<_, Failure>(again)
    };
    let lets_go = async {
        there(false).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        owner.log.hold_deletes(false);
    };
    let (deleted, created, ()) = tokio::join!(deletes, creates, lets_go);
    deleted?;
    let again = created?;
    holds("it is another one", again.uid != topic.uid, again.uid)?;
    let mut seen = Vec::new();
    for id in again.logs() {
        for stored in other.records(&id, Position::ZERO).await? {
            seen.push(event_of(&stored)?.id().parse::<usize>()?);
        }
    }
    seen.sort_unstable();
    same("what was published after it was created", seen, (10..15).collect())
}
