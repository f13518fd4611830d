//! Whatever happens to the partitions of a subscription, the sets by which work is found say what a look at all of them would
//! say; and who asks for the next delivery goes round those that have one.

use std::collections::HashMap;

use super::take::Outgoing;
use super::*;
use crate::consume::progress::{Choice, LOAD_EVENTS, Taken};
use crate::consume::tests::{Cluster, subscription, topic};
use crate::environment::Random as _;
use crate::slot::SlotHandle;
use crate::testing::SeededRandom;

/// A subscription to partitions that this process delivers, without anybody who reads or delivers.
struct Bench {
    core: Core,
    owned: Arc<Owned>,
    // What was added and published: the key of each event.
    logs: HashMap<Partition, Vec<Option<u8>>>,
    _cluster: Cluster,
}

impl Bench {
    async fn new() -> Self {
        let cluster = Cluster::new().await;
        let consume = cluster.process(Arc::new(cluster.slot0.clone()) as Arc<dyn SlotHandle>).await;
        let subscription = consume.create_subscription(subscription("s", "of.nobody")).await.unwrap();
        let journal = cluster.journals().await.remove(0);
        let slot = journal.slot();
        consume.acquire(journal).await.unwrap();
        let owned = consume.shared.owned(slot).unwrap();
        let core = Core::new(0, subscription, &cluster.environment);
        Self { core, owned, logs: HashMap::new(), _cluster: cluster }
    }

    fn partition(number: u32) -> Partition {
        Partition { topic: topic("orders", 1).name, number }
    }

    fn add(&mut self, number: u32) {
        let partition = Self::partition(number);
        let begin = (Begin::At(Position::ZERO), Checkpoint::default());
        assert!(self.core.add(&self.owned, partition.clone(), KeyFrom::PartitionKey, begin));
        self.logs.insert(partition, Vec::new());
    }

    fn site(&self, number: u32) -> Option<Site> {
        let state = self.core.state.lock();
        state.entries.get(&Self::partition(number)).map(Entry::site)
    }

    fn event(position: u64, key: Option<u8>) -> Arc<Event> {
        let event = Event::builder(position.to_string(), "/s", "t");
        let event = match key {
            Some(key) => {
                event.extension("partitionkey", tidegate_schemas::event::Value::String(key.to_string().into()))
            }
            None => event,
        };
        Arc::new(event.build().unwrap())
    }

    /// The next event of a partition, as its router hands it in.
    fn publish(&mut self, number: u32, key: Option<u8>) {
        let Some(site) = self.site(number) else { return };
        let log = self.logs.get_mut(&site.partition).unwrap();
        let position = Position(log.len() as u64);
        let feed = Feed::Router(position.next());
        if self.core.offer(site.as_ref(), (position, 0), &Self::event(position.0, key), feed) != Offered::Full {
            log.push(key);
        }
    }

    /// What the feeder does: reads again what fell behind.
    fn load(&self, now: u64) {
        let Some(work) = self.core.work(now, true) else { return };
        for (site, loads) in work.loads {
            for load in loads.lanes {
                let log = &self.logs[&site.partition];
                let of_lane = (load.from.0..=load.last.0).filter_map(|position| {
                    let event = Self::event(position, log[position as usize]);
                    let place = Position(position);
                    let is_its = lane_of(Order::Key, KeyFrom::PartitionKey, place, &event) == load.lane
                        || load.lane == LaneKey::Single(place);
                    is_its.then(|| Queued::new(place, 0, event))
                });
                let events: Vec<Queued> = of_lane.take(LOAD_EVENTS.min(loads.share)).collect();
                let scanned = events.last().map_or(load.last, |last| last.position).next();
                self.core.loaded(&site, load.lane, events, scanned);
            }
        }
    }

    fn take(&self, now: u64) -> Option<Box<Outgoing>> {
        match self.core.take(now) {
            Take::Now(outgoing) => Some(outgoing),
            Take::Wait(_) | Take::Closed => None,
        }
    }

    fn done(&self, outgoing: Outgoing, now: u64) {
        self.core.settle(outgoing, Heard::Success, now, |progress, taken| progress.done(taken.lane, taken.position));
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_work_is_found_where_it_is() {
    const PARTITIONS: u32 = 9;
    for seed in 0..12 {
        let mut bench = Bench::new().await;
        let random = SeededRandom::new(seed);
        let below = |bound: u64| random.bits() % bound;
        (0..PARTITIONS).for_each(|number| bench.add(number));
        let (mut out, mut now, mut delivered) = (Vec::new(), 1_000, 0);
        for _ in 0..3_000 {
            let number = below(u64::from(PARTITIONS)) as u32;
            match below(20) {
                0..=5 => bench.publish(number, Some(below(4) as u8).filter(|key| *key > 0)),
                6..=9 => out.extend(bench.take(now)),
                10..=13 if !out.is_empty() => {
                    let outgoing = *out.swap_remove(below(out.len() as u64) as usize);
                    let due = now + below(200);
                    let settle = |heard, change: &dyn Fn(&mut Progress, Taken)| {
                        bench.core.settle(outgoing, heard, now, |progress, taken| change(progress, taken));
                    };
                    match below(6) {
                        0 => settle(Heard::Failure, &|progress, taken| progress.retry(taken.lane, &taken, now, due)),
                        1 => settle(Heard::Nothing, &|progress, taken| progress.release(taken.lane, taken)),
                        2 => settle(Heard::Nothing, &|progress, taken| progress.release_last(taken.lane, taken)),
                        3 => settle(Heard::Success, &|progress, taken| progress.pause(taken.lane, &taken, now, now)),
                        _ => {
                            delivered += 1;
                            settle(Heard::Success, &|progress, taken| progress.done(taken.lane, taken.position));
                        }
                    }
                }
                14 | 15 => bench.load(now),
                16 => now += below(300),
                17 => {
                    if let Some(lane) = bench.core.paused_lanes().first() {
                        bench.core.resume_lane(lane, below(2) == 0);
                    }
                }
                18 => {
                    let Some(site) = bench.site(number) else { continue };
                    let end = Position(bench.logs[&site.partition].len() as u64);
                    if below(2) == 0 {
                        bench.core.joined(site.as_ref(), end);
                    } else {
                        bench.core.read_to(site.as_ref(), end);
                    }
                }
                19 if below(10) == 0 => {
                    // Its slot goes and comes again; what is out of it settles without effect.
                    bench.core.state.lock().entries.forget(|entry| entry.partition.number == number);
                    bench.core.state.lock().entries.assert_true();
                    bench.add(number);
                }
                _ => {}
            }
            bench.core.state.lock().entries.assert_true();
        }
        assert!(delivered > 100, "seed {seed}: {delivered} deliveries");
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_take_turns_and_those_at_rest_are_not_asked() {
    let mut bench = Bench::new().await;
    (0..1_000).for_each(|number| bench.add(number));
    for _ in 0..3 {
        [5, 700, 999].into_iter().for_each(|number| bench.publish(number, None));
    }
    let mut turns = Vec::new();
    for _ in 0..9 {
        let outgoing = bench.take(1_000).unwrap();
        turns.push(outgoing.partition.number);
        bench.done(*outgoing, 1_000);
    }
    assert_eq!(turns, [5, 700, 999, 5, 700, 999, 5, 700, 999]);
    assert!(bench.take(1_000).is_none());

    [5, 700, 999].into_iter().for_each(|number| bench.publish(number, None));
    let state = bench.core.state.lock();
    let asked = |turn: usize| {
        let mut round = entries::Round::from(turn);
        std::iter::from_fn(|| state.entries.next_ready(&mut round, Choice::RetriesFirst)).collect::<Vec<_>>()
    };
    for (turn, order) in [(0, [5, 700, 999]), (6, [700, 999, 5]), (999, [999, 5, 700]), (1_000, [5, 700, 999])] {
        assert_eq!(asked(turn), order, "from {turn} on");
    }
    assert_eq!((state.entries.due(u64::MAX), state.entries.own().len()), (vec![], 1_000));
}
