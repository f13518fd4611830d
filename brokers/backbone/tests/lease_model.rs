//! An exhaustive check of what an owner may do without asking the log, over every interleaving of a small world with time:
//! an owner that sends signs of life, releases, and stops for any while; a candidate that reads, counts the silence and
//! announces itself; a broker that delays and loses. The accept rule and the acknowledgement rule are the ones that the
//! product runs; lease and silence have its proportions, in steps of half a second. Each rule is also weakened, and the
//! check must find two that act at once.

use std::hash::{DefaultHasher, Hash, Hasher};

use stateright::{Checker, Model, Property};
use tidegate_backbone::Position;
use tidegate_backbone::slot::accept::{Acceptor, Link, Step, Verdict};
use tidegate_backbone::slot::acknowledge::{Progress, Told, Window};
use tidegate_backbone::slot::frame::Generation;
use tidegate_schemas::limits;

/// Half-seconds.
const fn steps(duration: std::time::Duration) -> u8 {
    (duration.as_millis() / 500) as u8
}

const LEASE: u8 = steps(limits::CLAIM_LEASE);
const SILENCE: u8 = steps(limits::CLAIM_SILENCE);
const SIGN: u8 = steps(limits::CLAIM_SIGN_TIMEOUT);

/// Which rule is weakened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// The lease counts from when the owner learns that its frame was accepted.
    LeaseFromKnowledge,
    /// The candidate waits no longer than the lease lasts, less a step.
    ShortSilence,
    /// An Announce counts, whatever the owner wrote behind what its candidate had observed.
    NoObserved,
    /// The lease ends when the Release is known accepted.
    LateRelease,
    /// A frame is taken for accepted wherever it stands.
    AnyPosition,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    time: u8,
    beats: u8,
    announces: u8,
    losses: u8,
    mutation: Mutation,
}

impl Bounds {
    fn with(mutation: Mutation) -> Self {
        Self { time: 9, beats: 2, announces: 2, losses: 1, mutation }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owner {
    acceptor: Acceptor,
    window: Window,
    /// Frames that are out, with the time at which they were sent.
    out: Vec<(Link, u8)>,
    last_hash: u64,
    /// From when its lease counts; none when it is over for good.
    base: Option<u8>,
    releasing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Candidate {
    acceptor: Acceptor,
    read_at: u8,
    sign_at: u8,
    live_since: u8,
    announced: bool,
    acts: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u8,
    log: Vec<Link>,
    /// Appends under way.
    flights: Vec<Link>,
    /// What the owner has yet to be told.
    tells: Vec<(u64, Told)>,
    owner: Owner,
    candidate: Candidate,
    beats: u8,
    announces: u8,
    losses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    Beat,
    Release,
    Deliver(usize),
    Lose(usize),
    Tell(usize),
    ReadBack,
    Read,
    Announce,
}

const OWNER: u64 = 1;

fn hashed(mut link: Link) -> Link {
    link.hash = 0;
    let mut hasher = DefaultHasher::new();
    link.hash(&mut hasher);
    link.hash = hasher.finish();
    link
}

fn accept(mutation: Mutation, acceptor: &mut Acceptor, link: &Link, position: u64) -> Verdict {
    let mut link = *link;
    if mutation == Mutation::NoObserved
        && matches!(link.step, Step::Announce { .. })
        && link.epoch == acceptor.epoch() + 1
    {
        link.step = acceptor.announce().1;
        link.previous_hash = acceptor.last_hash();
    }
    acceptor.accept(&link, Position(position))
}

fn announce(acceptor: &Acceptor, owner: u64) -> Link {
    let (epoch, step) = acceptor.announce();
    let previous_hash = acceptor.last_hash();
    hashed(Link { slot: 0, epoch, owner, sequence: 0, known: 0, previous_hash, hash: 0, step })
}

impl World {
    fn new() -> Self {
        let mut acceptor = Acceptor::new(0, Generation::FIRST);
        let first = announce(&acceptor, OWNER);
        assert_eq!(acceptor.accept(&first, Position(0)), Verdict::Accepted);
        Self {
            now: 0,
            log: vec![first],
            flights: Vec::new(),
            tells: Vec::new(),
            owner: Owner {
                last_hash: acceptor.last_hash(),
                window: Window::new(0, Position(0)),
                out: Vec::new(),
                base: Some(0),
                releasing: false,
                acceptor: acceptor.clone(),
            },
            candidate: Candidate { acceptor, read_at: 0, sign_at: 0, live_since: 0, announced: false, acts: false },
            beats: 0,
            announces: 0,
            losses: 0,
        }
    }

    fn owner_acts(&self) -> bool {
        self.owner.base.is_some_and(|base| self.now < base + LEASE)
    }

    fn send(&mut self, step: Step) {
        let owner = &mut self.owner;
        let link = hashed(Link {
            slot: 0,
            epoch: 1,
            owner: OWNER,
            sequence: owner.window.send(),
            known: owner.window.known(),
            previous_hash: owner.last_hash,
            hash: 0,
            step,
        });
        owner.last_hash = link.hash;
        owner.out.push((link, self.now));
        self.fly(link);
    }

    fn fly(&mut self, link: Link) {
        if !self.flights.contains(&link) {
            self.flights.push(link);
            self.flights.sort_by_key(|link| link.hash);
        }
    }

    /// The owner knows that its oldest frame that is out was accepted.
    fn landed(&mut self, mutation: Mutation) {
        let (link, sent) = self.owner.out.remove(0);
        let from = if mutation == Mutation::LeaseFromKnowledge { self.now } else { sent };
        self.owner.base = self.owner.base.map(|base| base.max(from));
        if link.step == Step::Release {
            self.owner.base = None;
        }
    }

    fn tell(&mut self, mutation: Mutation, index: usize) {
        let (sequence, told) = self.tells.remove(index);
        self.owner.window.told(sequence, told);
        // Nothing is out once it was superseded.
        while !self.owner.out.is_empty() {
            let mut loose = self.owner.window.clone();
            if mutation == Mutation::AnyPosition && loose.progress() == Progress::ReadBack && told != Told::Nothing {
                let known = self.owner.window.known() + 1;
                self.owner.window.read_back(known, self.owner.window.anchor());
                self.landed(mutation);
                continue;
            }
            let Progress::Accepted { position, .. } = self.owner.window.progress() else { return };
            if mutation != Mutation::AnyPosition {
                let link = self.owner.out[0].0;
                assert_eq!(accept(mutation, &mut self.owner.acceptor, &link, position.0), Verdict::Accepted);
            }
            self.landed(mutation);
        }
    }

    fn read_back(&mut self, mutation: Mutation) {
        let from = self.owner.acceptor.read().map_or(0, |read| read.0 + 1);
        let mut known = self.owner.window.known();
        for position in from..self.log.len() as u64 {
            let link = self.log[position as usize];
            if accept(mutation, &mut self.owner.acceptor, &link, position) != Verdict::Accepted {
                continue;
            }
            if link.owner != OWNER {
                // Superseded.
                self.owner.base = None;
                self.owner.out.clear();
                self.owner.releasing = true;
                return;
            }
            known = link.sequence;
            // The weakened rule has taken it for accepted before.
            if self.owner.out.first().is_some_and(|(first, _)| *first == link) {
                self.landed(mutation);
            }
        }
        self.owner.window.read_back(known, self.owner.acceptor.read().unwrap_or_default());
        for (link, _) in self.owner.out.clone() {
            self.fly(link);
        }
    }

    fn read(&mut self, mutation: Mutation) {
        let candidate = &mut self.candidate;
        let from = candidate.acceptor.read().map_or(0, |read| read.0 + 1);
        for position in from..self.log.len() as u64 {
            let link = self.log[position as usize];
            if accept(mutation, &mut candidate.acceptor, &link, position) == Verdict::Accepted {
                candidate.read_at = self.now;
                candidate.acts |= link.owner != OWNER;
            }
            // What it announced is there, whatever became of it.
            candidate.announced &= link.owner == OWNER;
        }
        if self.now - candidate.sign_at > SIGN {
            candidate.live_since = self.now;
        }
        candidate.sign_at = self.now;
    }

    fn may_announce(&self, mutation: Mutation) -> bool {
        let candidate = &self.candidate;
        let silence = if mutation == Mutation::ShortSilence { LEASE - 1 } else { SILENCE };
        let silent = self.now >= candidate.read_at.max(candidate.live_since) + silence;
        let live = self.now - candidate.sign_at <= SIGN;
        !candidate.acts && !candidate.announced && live && (silent || candidate.acceptor.released())
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.owner_acts() && world.candidate.acts {
            return;
        }
        if world.now < self.time {
            actions.push(Action::Tick);
        }
        if !world.owner.releasing && world.owner.out.len() < 2 {
            if world.beats < self.beats {
                actions.push(Action::Beat);
            }
            actions.push(Action::Release);
        }
        for index in 0..world.flights.len() {
            actions.push(Action::Deliver(index));
            if world.losses < self.losses {
                actions.push(Action::Lose(index));
            }
        }
        actions.extend((0..world.tells.len()).map(Action::Tell));
        if world.owner.window.clone().progress() == Progress::ReadBack && !world.owner.out.is_empty() {
            actions.push(Action::ReadBack);
        }
        actions.push(Action::Read);
        if world.announces < self.announces && world.may_announce(self.mutation) {
            actions.push(Action::Announce);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Tick => world.now += 1,
            Action::Beat => {
                world.beats += 1;
                world.send(Step::Heartbeat);
            }
            Action::Release => {
                world.owner.releasing = true;
                if self.mutation != Mutation::LateRelease {
                    world.owner.base = None;
                }
                world.send(Step::Release);
            }
            Action::Deliver(index) => {
                let link = world.flights.remove(index);
                world.log.push(link);
                if link.owner == OWNER {
                    let position = Position(world.log.len() as u64 - 1);
                    world.tells.push((link.sequence, Told::At(position)));
                }
            }
            Action::Lose(index) => {
                world.losses += 1;
                let link = world.flights.remove(index);
                if link.owner == OWNER {
                    world.tells.push((link.sequence, Told::Nothing));
                } else {
                    world.candidate.announced = false;
                }
            }
            Action::Tell(index) => world.tell(self.mutation, index),
            Action::ReadBack => world.read_back(self.mutation),
            Action::Read => world.read(self.mutation),
            Action::Announce => {
                world.announces += 1;
                world.candidate.announced = true;
                let link = announce(&world.candidate.acceptor, OWNER + u64::from(world.announces));
                world.fly(link);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE, |_, world: &World| !(world.owner_acts() && world.candidate.acts)),
            Property::sometimes("a silent owner is replaced", |_, world: &World| {
                world.candidate.acts && !world.owner.releasing
            }),
            Property::sometimes("a Release is followed before the silence is over", |_, world: &World| {
                world.candidate.acts && world.now < SILENCE
            }),
            Property::sometimes("an owner that writes keeps its lease beyond the silence", |_, world: &World| {
                world.owner_acts() && world.now > SILENCE
            }),
            Property::sometimes("an Announce comes too late", |_, world: &World| {
                world.announces == 1 && world.candidate.acceptor.read() > Some(Position(1)) && {
                    let announced = world.log.iter().any(|link| link.owner != OWNER);
                    announced && world.candidate.acceptor.epoch() == 1
                }
            }),
        ]
    }
}

const ONE: &str = "one at most acts";

#[test]
fn an_owner_under_its_lease_and_the_next_never_act_at_once() {
    let small = Bounds { time: 6, beats: 1, announces: 1, losses: 0, mutation: Mutation::None };
    let checker = small.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.is_done() && checker.unique_state_count() > 1_000, "{} states", checker.unique_state_count());
    // The first states of a larger one, nearest to the beginning.
    let checker = Bounds::with(Mutation::None).checker().threads(2).target_state_count(200_000).spawn_bfs().join();
    checker.assert_no_discovery(ONE);
    assert!(checker.state_count() >= 200_000, "{} states", checker.state_count());
}

/// The weakened rule lets two act at once.
fn caught(mutation: Mutation) {
    let checker = Bounds::with(mutation).checker().threads(2).finish_when(stateright::HasDiscoveries::AnyFailures);
    let found = checker.spawn_bfs().join().discoveries();
    assert!(found.contains_key(ONE), "{mutation:?} was not caught");
}

#[test]
fn a_lease_that_counts_from_knowledge_is_too_long() {
    caught(Mutation::LeaseFromKnowledge);
}

#[test]
fn a_silence_within_the_lease_is_too_short() {
    caught(Mutation::ShortSilence);
}

#[test]
fn an_announce_behind_what_its_candidate_observed_must_be_void() {
    caught(Mutation::NoObserved);
}

#[test]
fn the_lease_ends_before_the_release_is_sent() {
    caught(Mutation::LateRelease);
}

#[test]
fn a_frame_behind_another_announce_renews_no_lease() {
    caught(Mutation::AnyPosition);
}
