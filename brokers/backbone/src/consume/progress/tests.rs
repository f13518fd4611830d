//! The state machine against a log in memory: whatever happens, every event is settled, in the order of its key.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Offer,
    Take,
    Done(usize),
    Retry(usize, u64),
    Release(usize),
    ReleaseLast(usize),
    Pause(usize),
    Resume(usize),
    Skip(usize),
    Load,
    Advance(u64),
    /// Memory becomes short, or there is some again.
    Short(bool),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Offer),
        5 => Just(Step::Take),
        4 => any::<usize>().prop_map(Step::Done),
        2 => (any::<usize>(), 0..50_u64).prop_map(|(which, after)| Step::Retry(which, after)),
        1 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::ReleaseLast),
        1 => any::<usize>().prop_map(Step::Pause),
        1 => any::<usize>().prop_map(Step::Resume),
        1 => any::<usize>().prop_map(Step::Skip),
        3 => Just(Step::Load),
        2 => (1..40_u64).prop_map(Step::Advance),
        1 => any::<bool>().prop_map(Step::Short),
    ]
}

/// One subscription over a log of keyed and keyless events.
struct World {
    /// The key of each event; position is the index.
    log: Vec<Option<u8>>,
    /// Events that are not to go out before that time.
    delayed: BTreeMap<u64, u64>,
    progress: Progress,
    read: u64,
    now: u64,
    out: Vec<Taken>,
    /// Loads that were asked for and not answered yet.
    loads: Loads,
    settled: BTreeSet<u64>,
    settled_times: BTreeMap<u64, u32>,
}

impl World {
    fn new(log: Vec<Option<u8>>) -> Self {
        Self {
            log,
            delayed: BTreeMap::new(),
            progress: Progress::default(),
            read: 0,
            now: 0,
            out: Vec::new(),
            loads: Loads::default(),
            settled: BTreeSet::new(),
            settled_times: BTreeMap::new(),
        }
    }

    fn lane(&self, position: u64) -> LaneKey {
        match self.log[position as usize] {
            Some(key) if !self.delayed.contains_key(&position) => LaneKey::Key(u128::from(key)),
            _ => LaneKey::Single(Position(position)),
        }
    }

    fn event(position: u64) -> Arc<Event> {
        Arc::new(Event::builder(position.to_string(), "/s", "t").build().unwrap())
    }

    fn offer(&mut self) -> bool {
        if self.read as usize == self.log.len() {
            return false;
        }
        let lane = self.lane(self.read);
        let offered = match self.delayed.get(&self.read) {
            Some(due) if *due > self.now => self.progress.delay(Position(self.read), *due),
            _ => self.progress.offer(lane, Position(self.read), 0, &Self::event(self.read)),
        };
        if offered != Offered::Full {
            self.read += 1;
            self.progress.reached(Position(self.read));
            return true;
        }
        false
    }

    fn take(&mut self) -> bool {
        let Some(taken) = self.progress.take(Choice::RetriesFirst) else { return false };
        let due = self.delayed.get(&taken.position.0).copied().unwrap_or(0);
        assert!(due <= self.now, "{} went out before its time", taken.position);
        assert_eq!(taken.event.id(), taken.position.0.to_string().as_str());
        assert!(self.out.iter().all(|other| other.lane != taken.lane), "two events of one lane are out at once");
        if let LaneKey::Key(_) = taken.lane {
            let earlier = (0..taken.position.0).filter(|position| self.lane(*position) == taken.lane);
            for position in earlier {
                assert!(self.settled.contains(&position), "{} went out before {position} of its key", taken.position);
            }
        }
        self.out.push(taken);
        true
    }

    fn done(&mut self, which: usize) {
        if let Some(taken) = self.pick(which) {
            self.settled.insert(taken.position.0);
            *self.settled_times.entry(taken.position.0).or_default() += 1;
            self.progress.done(taken.lane, taken.position);
        }
    }

    fn paused(&self, which: usize) -> Option<(LaneKey, Position)> {
        let paused: Vec<_> = self.progress.paused().map(|(lane, head, ..)| (lane, head)).collect();
        (!paused.is_empty()).then(|| paused[which % paused.len()])
    }

    fn skip(&mut self, which: usize) {
        if let Some((lane, head)) = self.paused(which) {
            assert!(!self.progress.skip(lane, head.next()), "it stands at another event");
            assert!(self.progress.skip(lane, head));
            self.settled.insert(head.0);
            *self.settled_times.entry(head.0).or_default() += 1;
        }
    }

    fn pick(&mut self, which: usize) -> Option<Taken> {
        (!self.out.is_empty()).then(|| self.out.swap_remove(which % self.out.len()))
    }

    /// Asks for loads, or answers one: at most three events, and five for all, as a real reader is bounded.
    fn load(&mut self) -> bool {
        if self.loads.lanes.is_empty() {
            self.loads = self.progress.due(self.now, 4, self.now.is_multiple_of(2));
            if self.loads.lanes.is_empty() {
                self.loads = self.progress.due(self.now, 4, true);
            }
            self.loads.events = self.loads.events.min(5);
            return !self.loads.lanes.is_empty();
        }
        let load = self.loads.lanes.remove(0);
        if self.loads.events == 0 {
            self.progress.not_reached(load.lane);
            return true;
        }
        let mut events = Vec::new();
        let mut scanned = load.from;
        for position in load.from.0..=load.last.0 {
            scanned = Position(position + 1);
            if self.lane(position) == load.lane {
                events.push(Queued::new(Position(position), 0, Self::event(position)));
                self.loads.events -= 1;
                if events.len() == self.loads.share.min(3) || self.loads.events == 0 {
                    break;
                }
            }
        }
        self.progress.loaded(load.lane, events, scanned);
        true
    }

    fn crash(&mut self) {
        let checkpoint = self.progress.checkpoint();
        let read = self.progress.read(Position(self.read));
        self.read = Progress::resume_from(read, &checkpoint).0;
        self.progress = Progress::restore(read, checkpoint);
        self.out.clear();
        self.loads = Loads::default();
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Offer => drop(self.offer()),
            Step::Take => drop(self.take()),
            Step::Done(which) => self.done(*which),
            Step::Retry(which, after) => {
                if let Some(taken) = self.pick(*which) {
                    self.progress.retry(taken.lane, &taken, self.now, self.now + after);
                }
            }
            Step::Release(which) => {
                if let Some(taken) = self.pick(*which) {
                    self.progress.release(taken.lane, taken);
                }
            }
            Step::Pause(which) => {
                if let Some(taken) = self.pick(*which) {
                    self.progress.pause(taken.lane, &taken, self.now, self.now);
                }
            }
            Step::Resume(which) => {
                if let Some((lane, _)) = self.paused(*which) {
                    assert!(self.progress.resume(lane, self.now));
                    assert!(!self.progress.resume(lane, self.now), "it is not paused any more");
                }
            }
            Step::Skip(which) => self.skip(*which),
            Step::ReleaseLast(which) => {
                if let Some(taken) = self.pick(*which) {
                    self.progress.release_last(taken.lane, taken);
                }
            }
            Step::Load => drop(self.load()),
            Step::Advance(milliseconds) => self.now += milliseconds,
            Step::Short(short) => self.progress.memory_is_short(*short),
            Step::Crash => self.crash(),
        }
    }

    /// Lets everything end well; it must come to an end.
    fn finish(&mut self) {
        self.now += 10_000_000;
        for _ in 0..100_000 {
            self.now += 1_000;
            let paused = self.paused(0);
            if let Some((lane, _)) = paused {
                self.progress.resume(lane, self.now);
            }
            let moved = [paused.is_some(), !self.out.is_empty(), self.offer(), self.take(), self.load()];
            while !self.out.is_empty() {
                self.done(0);
            }
            if !moved.contains(&true) {
                assert_eq!(self.settled.len(), self.log.len(), "events were never settled");
                assert_eq!(self.progress.depth(), (0, 0, 0));
                assert_eq!((self.progress.queued, self.progress.loaded, self.progress.loading), Default::default());
                assert_eq!(self.progress.checkpoint(), Checkpoint::default());
                return;
            }
        }
        panic!("no end in sight");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_settled_once_and_in_the_order_of_its_key(
        log in proptest::collection::vec(proptest::option::weighted(0.8, 0..4_u8), 1..40),
        delayed in proptest::collection::btree_map(0..40_u64, 0..100_u64, 0..5),
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let mut world = World { delayed, ..World::new(log) };
        for step in &steps {
            world.run(step);
        }
        world.finish();
        prop_assert!(world.settled_times.values().all(|times| *times == 1), "{:?}", world.settled_times);
    }

    #[test]
    fn a_restart_costs_no_event_nor_its_order_and_repeats_nothing_that_was_written_down(
        log in proptest::collection::vec(proptest::option::weighted(0.8, 0..4_u8), 1..40),
        delayed in proptest::collection::btree_map(0..40_u64, 0..100_u64, 0..5),
        steps in proptest::collection::vec(prop_oneof![12 => step(), 1 => Just(Step::Crash)], 0..300),
    ) {
        let mut world = World { delayed, ..World::new(log) };
        for step in &steps {
            world.run(step);
        }
        world.finish();
        prop_assert!(world.settled_times.values().all(|times| *times == 1), "{:?}", world.settled_times);
    }
}

#[test]
fn a_poisoned_key_costs_one_entry_and_stops_no_other() {
    let mut world = World::new((0..4_000).map(|n| Some(u8::from(n % 2 == 0))).collect());
    world.offer();
    world.take();
    let poisoned = world.out[0].lane;
    world.run(&Step::Retry(0, 1_000_000));
    while world.offer() {
        if world.take() {
            world.done(0);
        }
    }
    assert_eq!(world.progress.depth(), (0, 1, 0), "what follows the poisoned event is not kept in memory");
    assert_eq!(world.settled.len(), 2_000, "all of the other key went on");
    assert_eq!(world.progress.checkpoint().parked.len(), 1);
    assert!(world.settled.iter().all(|position| world.lane(*position) != poisoned));
    world.finish();
}

#[test]
fn a_full_queue_refuses_and_takes_the_same_event_later() {
    let mut world = World::new(vec![None; limits::DELIVERY_QUEUE_EVENTS + 1]);
    while world.offer() {}
    assert_eq!(world.read as usize, limits::DELIVERY_QUEUE_EVENTS);
    assert!(world.progress.is_full() && !world.progress.has_room());
    world.take();
    assert!(world.offer(), "one place is free");
    world.finish();
}

#[test]
fn without_memory_it_holds_one_event_and_goes_on() {
    let mut world = World::new(vec![None; 20]);
    world.progress.memory_is_short(true);
    assert!(world.offer() && !world.offer(), "one event is held, and no more");
    assert!(!world.progress.has_room());
    world.finish();
    assert_eq!(world.settled.len(), 20, "it stands still");
}

#[test]
fn attempts_are_counted_for_the_event_that_failed_and_begin_anew_for_the_next() {
    let mut world = World::new(vec![Some(1), Some(1)]);
    world.offer();
    world.offer();
    for attempts in 0..3 {
        world.now += 10;
        while world.load() {}
        world.take();
        assert_eq!((world.out[0].position.0, world.out[0].attempts), (0, attempts));
        world.run(&Step::Retry(0, 5));
    }
    world.crash();
    while world.offer() {}
    world.now += 10;
    while world.load() {}
    world.take();
    assert_eq!((world.out[0].position.0, world.out[0].attempts), (0, 3), "a restart keeps the count");
    world.done(0);
    while world.load() {}
    world.take();
    assert_eq!((world.out[0].position.0, world.out[0].attempts, world.out[0].first_attempt_at), (1, 0, None));
}

#[test]
fn a_paused_key_stands_still_over_a_restart_until_it_is_resumed_with_nothing_counted() {
    let mut world = World::new(vec![Some(1), Some(2), Some(1), Some(2)]);
    while world.offer() {}
    world.take();
    world.run(&Step::Pause(0));
    world.crash();
    world.now += 1_000_000;
    while world.offer() || world.load() || world.take() {}
    assert_eq!(world.out.iter().map(|taken| taken.position.0).collect::<Vec<_>>(), [1], "the other key goes on");
    assert_eq!(world.progress.depth(), (1, 0, 1));
    let (lane, head, attempts, since) = world.progress.paused().next().unwrap();
    assert_eq!((lane, head, attempts, since), (LaneKey::Key(1), Position(0), 1, 0));
    assert!(world.progress.resume(lane, world.now));
    world.load();
    world.load();
    world.take();
    let resumed = world.out.iter().find(|taken| taken.position.0 == 0).unwrap();
    assert_eq!((resumed.attempts, resumed.first_attempt_at), (0, None));
    world.finish();
}

#[test]
fn a_delayed_event_takes_no_memory_but_its_place_and_a_restart_does_not_make_it_older() {
    let mut world = World { delayed: [(0, 500)].into(), ..World::new(vec![Some(1), Some(1)]) };
    while world.offer() || world.load() || world.take() {}
    assert_eq!(world.out.iter().map(|taken| taken.position.0).collect::<Vec<_>>(), [1], "its key does not wait for it");
    assert_eq!(world.progress.depth(), (0, 1, 0));
    world.done(0);
    let before = world.progress.checkpoint();
    world.now = 400;
    assert_eq!(world.progress.checkpoint(), before, "what waits is not written again and again");
    world.crash();
    while world.offer() || world.load() || world.take() {}
    assert!(world.out.is_empty());
    world.now = 500;
    while world.load() {}
    world.take();
    assert_eq!((world.out[0].position.0, world.out[0].first_attempt_at), (0, None));
    world.finish();
}

#[test]
fn retries_go_out_only_where_they_may() {
    let mut world = World::new(vec![Some(1), Some(2), Some(3)]);
    while world.offer() {}
    world.take();
    world.run(&Step::Retry(0, 0));
    while world.load() {}
    let position = |taken: Option<Taken>| taken.map(|taken| taken.position.0);
    assert_eq!(position(world.progress.take(Choice::New)), Some(1));
    assert_eq!(position(world.progress.take(Choice::RetriesFirst)), Some(0), "before those that have not failed");
    assert_eq!(position(world.progress.take(Choice::New)), Some(2));
    assert_eq!(position(world.progress.take(Choice::New)), None);
}

#[test]
fn probes_go_round_all_lanes_whether_they_failed_before_or_not() {
    // Nine that have failed and three that have not: taken in turn alone, the three would be tried three times as often.
    let mut world = World::new((0..14).map(Some).collect());
    for _ in 0..12 {
        world.offer();
    }
    for _ in 0..9 {
        world.take();
        world.run(&Step::Retry(0, 0));
    }
    loop {
        world.loads = world.progress.due(world.now, 9, true);
        if world.loads.lanes.is_empty() {
            break;
        }
        while !world.loads.lanes.is_empty() {
            world.load();
        }
    }
    let probe = |progress: &mut Progress| {
        let taken = progress.take(Choice::Probe).unwrap();
        let (position, attempts) = (taken.position.0, taken.attempts);
        progress.release_last(taken.lane, taken);
        assert_eq!(attempts, u32::from(position < 9), "a probe that fails counts nothing");
        position
    };
    for round in 0..3 {
        let probed: BTreeSet<u64> = (0..12).map(|_| probe(&mut world.progress)).collect();
        assert_eq!(probed.len(), 12, "round {round}");
    }
    // What comes amid a round has its turn before any has another one.
    world.offer();
    assert_eq!(probe(&mut world.progress), 12);
    // Once the sink is well, retries go first again, and where they may not go they wait.
    assert!(world.progress.has_retry());
    world.offer();
    let new: BTreeSet<u64> =
        std::iter::from_fn(|| world.progress.take(Choice::New)).map(|taken| taken.position.0).collect();
    assert_eq!(new, BTreeSet::from([9, 10, 11, 12, 13]));
    let again: BTreeSet<u64> =
        std::iter::from_fn(|| world.progress.take(Choice::RetriesFirst)).map(|taken| taken.position.0).collect();
    assert_eq!(again, (0..9).collect());
}
