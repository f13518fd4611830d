//! An exhaustive check of the rules that slots rest on, over small worlds: two nodes that announce, commit, roll, release
//! and die at any time, over a broker that loses, repeats and reorders appends. The accept rule and the acknowledgement
//! rule are the ones that the product runs. Each rule is also weakened, and the check must find what goes wrong then.

#[path = "model_parts/nodes.rs"]
mod nodes;
#[path = "model_parts/world.rs"]
mod world;

use stateright::{Checker, Model, Property};
use world::{Action, Mutation, World, flaw};

/// The bounds of a world, and the rule that is weakened in it.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Announces that are sent in all.
    announces: u8,
    /// Commands that clients send.
    commands: u8,
    /// Appends that are lost or repeated in all.
    faults: u8,
    /// Rolls that are begun in all.
    rolls: u8,
    /// Appends under way at once.
    flights: usize,
    /// Whether owners release the slot.
    release: bool,
    /// What is weakened.
    mutation: Mutation,
}

impl Default for Bounds {
    fn default() -> Self {
        let mutation = Mutation::None;
        Self { announces: 2, commands: 2, faults: 1, rolls: 0, flights: 2, release: false, mutation }
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(self, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        world.step(self, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no command is executed twice", |_, world: &World| !world.has(flaw::TWICE)),
            Property::always("no acknowledged commit is missing", |_, world: &World| !world.has(flaw::MISSING)),
            Property::always("one owner at a position", |_, world: &World| !world.has(flaw::OWNERS)),
            Property::always("what is over has no effect", |_, world: &World| !world.has(flaw::VOID)),
            Property::always("one valid generation", |_, world: &World| !world.has(flaw::GENERATIONS)),
            Property::always("the slot can be found", |_, world: &World| !world.has(flaw::UNFINDABLE)),
            Property::always("a live owner is not usurped", |_, world: &World| !world.has(flaw::USURPED)),
            Property::always("no reader finds a contradiction", |_, world: &World| !world.has(flaw::BROKEN)),
            Property::sometimes("two owners in turn commit", |bounds, world: &World| {
                bounds.announces < 2 || world.committed_by_both()
            }),
            Property::sometimes("a roll is completed", |bounds, world: &World| bounds.rolls == 0 || world.rolled()),
        ]
    }
}

/// Every state within the bounds keeps every promise; there are at least that many.
fn holds(bounds: Bounds, states: usize) {
    let checker = bounds.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.is_done() && checker.unique_state_count() >= states, "{} states", checker.unique_state_count());
}

/// The first states, nearest to the beginning, keep every promise.
fn holds_among(bounds: Bounds, states: usize) {
    let checker = bounds.checker().threads(2).target_state_count(states).spawn_bfs().join();
    for promise in [TWICE, MISSING, OWNERS, VOID, GENERATIONS, UNFINDABLE, USURPED, BROKEN] {
        checker.assert_no_discovery(promise);
    }
    assert!(checker.state_count() >= states, "{} states", checker.state_count());
}

/// The weakened rule leads to one of these.
fn caught(bounds: Bounds, expected: &[&str]) {
    let checker = bounds.checker().threads(2).finish_when(stateright::HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let found: Vec<&str> = checker.discoveries().into_keys().collect();
    assert!(found.iter().any(|name| expected.contains(name)), "{bounds:?} found only {found:?}");
}

const TWICE: &str = "no command is executed twice";
const MISSING: &str = "no acknowledged commit is missing";
const OWNERS: &str = "one owner at a position";
const VOID: &str = "what is over has no effect";
const GENERATIONS: &str = "one valid generation";
const UNFINDABLE: &str = "the slot can be found";
const USURPED: &str = "a live owner is not usurped";
const BROKEN: &str = "no reader finds a contradiction";

#[test]
fn takeovers_keep_every_promise() {
    holds(Bounds::default(), 150_000);
    holds_among(Bounds { announces: 3, faults: 2, ..Bounds::default() }, 300_000);
}

#[test]
fn rolls_keep_every_promise() {
    holds(Bounds { rolls: 1, commands: 1, faults: 0, ..Bounds::default() }, 2_000);
    holds_among(Bounds { rolls: 1, ..Bounds::default() }, 300_000);
    holds_among(Bounds { rolls: 2, commands: 1, release: true, ..Bounds::default() }, 300_000);
}

#[test]
fn releases_keep_every_promise() {
    holds(Bounds { release: true, commands: 1, ..Bounds::default() }, 10_000);
}

#[test]
fn without_the_epoch_check_a_zombie_writes() {
    let bounds = Bounds { mutation: Mutation::NoEpochCheck, ..Bounds::default() };
    caught(bounds, &[TWICE, OWNERS, VOID]);
}

#[test]
fn without_the_sequence_rule_a_repeated_append_executes_twice() {
    caught(Bounds { mutation: Mutation::NoSequenceRule, ..Bounds::default() }, &[TWICE]);
}

#[test]
fn an_unbroken_run_of_positions_is_too_loose() {
    caught(Bounds { mutation: Mutation::UnbrokenRun, ..Bounds::default() }, &[MISSING]);
}

#[test]
fn acknowledging_without_the_predecessor_is_too_loose() {
    caught(Bounds { mutation: Mutation::NoPredecessor, ..Bounds::default() }, &[MISSING]);
}

#[test]
fn frames_behind_a_seal_must_be_void() {
    caught(Bounds { mutation: Mutation::AfterSeal, rolls: 1, ..Bounds::default() }, &[VOID, GENERATIONS]);
}

#[test]
fn a_generation_needs_its_accepted_seal() {
    let bounds = Bounds { mutation: Mutation::UnsealedIsValid, rolls: 1, ..Bounds::default() };
    caught(bounds, &[GENERATIONS, MISSING]);
}

#[test]
fn the_old_generation_goes_only_after_opened() {
    let bounds = Bounds { mutation: Mutation::DeleteBeforeOpened, rolls: 1, ..Bounds::default() };
    caught(bounds, &[UNFINDABLE]);
}

/// What the candidate had observed is for stability: without it a live owner is usurped, and nothing is lost all the same.
#[test]
fn without_the_observed_rule_a_live_owner_is_usurped_but_nothing_is_lost() {
    let bounds = Bounds { mutation: Mutation::NoObserved, ..Bounds::default() };
    caught(bounds, &[USURPED]);
    let all = [TWICE, MISSING, OWNERS, VOID].into_iter().collect();
    let checker = bounds.checker().threads(2).target_state_count(100_000);
    let checker = checker.finish_when(stateright::HasDiscoveries::AllOf(all)).spawn_bfs().join();
    let found: Vec<&str> = checker.discoveries().into_keys().collect();
    assert!(![TWICE, MISSING, OWNERS, VOID].iter().any(|name| found.contains(name)), "{found:?}");
}
