use bytes::Bytes;
use tidegate_schemas::limits;

use super::accept::{Acceptor, Broken, Link, Phase, Step, Verdict};
use super::acknowledge::{Progress, Told, Window};
use super::frame::{Commit, Generation, Named, Operation};
use super::heads::Heads;
use super::journal::{Change, CommandId};
use crate::log::Position;

fn link(state: &Acceptor, step: Step) -> Link {
    let (epoch, owner) = (state.epoch(), state.owner().unwrap_or(0));
    let sequence = state.last_sequence() + 1;
    let hash = 1_000 * epoch + sequence;
    Link { slot: 0, epoch, owner, sequence, known: 0, previous_hash: state.last_hash(), hash, step }
}

fn announce(state: &Acceptor, owner: u64) -> Link {
    let (epoch, step) = state.announce();
    Link { epoch, owner, sequence: 0, hash: 1_000 * epoch + owner, ..link(state, step) }
}

/// After the Announce of owner 7 and one commit, the log read up to position 1.
fn begun() -> Acceptor {
    let mut state = Acceptor::new(0, Generation::FIRST);
    assert_eq!(state.accept(&announce(&state.clone(), 7), Position(0)), Verdict::Accepted);
    let commit = link(&state, Step::Commit { revision: 1, commits: 1 });
    assert_eq!(state.accept(&commit, Position(1)), Verdict::Accepted);
    state
}

#[test]
fn the_accept_rule_line_by_line() {
    let state = begun();
    let next = link(&state, Step::Commit { revision: 2, commits: 3 });
    let candidate = announce(&state, 8);
    let check = |what: &str, link: Link, expected: Verdict| {
        let mut state = state.clone();
        assert_eq!(state.accept(&link, Position(5)), expected, "{what}");
        let revision = if expected == Verdict::Accepted && link.epoch == 1 { 4 } else { 1 };
        assert_eq!(state.revision(), revision, "{what}");
    };
    let broken = Verdict::Broken;
    check("the next frame", next, Verdict::Accepted);
    check("the last frame again", Link { sequence: 1, hash: state.last_hash(), ..next }, Verdict::Duplicate);
    check("an earlier frame again", Link { sequence: 0, ..next }, Verdict::Duplicate);
    check(
        "the last place with other content",
        Link { sequence: 1, ..next },
        broken(Broken::Chain { epoch: 1, sequence: 1 }),
    );
    check("a gap", Link { sequence: 3, known: 1, ..next }, Verdict::Gap);
    check(
        "a gap that was relied on",
        Link { sequence: 4, known: 2, ..next },
        broken(Broken::Lost { epoch: 1, missing: 2, known: 2 }),
    );
    check("another chain", Link { previous_hash: 1, ..next }, broken(Broken::Chain { epoch: 1, sequence: 2 }));
    check("another owner", Link { owner: 8, ..next }, Verdict::Superseded);
    check("an older epoch", Link { epoch: 0, ..next }, Verdict::Superseded);
    check("an epoch without Announce", Link { epoch: 2, ..next }, broken(Broken::Epoch { epoch: 2, current: 1 }));
    check("another slot", Link { slot: 3, ..next }, broken(Broken::Slot { slot: 3 }));
    let skipping = Step::Commit { revision: 3, commits: 1 };
    check(
        "a revision out of order",
        Link { step: skipping, ..next },
        broken(Broken::Revision { found: 3, expected: 2 }),
    );
    check("a snapshot in an open log", Link { step: Step::Snapshot, ..next }, broken(Broken::Misplaced));
    check("a candidate", candidate, Verdict::Accepted);
    check("a late candidate of this epoch", Link { epoch: 1, ..candidate }, Verdict::Superseded);
    check(
        "a candidate that skips an epoch",
        Link { epoch: 3, ..candidate },
        broken(Broken::Epoch { epoch: 3, current: 1 }),
    );
    let Step::Announce { previous_epoch, previous_last_sequence, previous_hash, .. } = candidate.step else { panic!() };
    let observed = |position, previous_last_sequence| Step::Announce {
        observed: Some(Position(position)),
        previous_epoch,
        previous_last_sequence,
        previous_hash,
    };
    let stale = Link { step: observed(0, previous_last_sequence), ..candidate };
    check("a candidate that had not read the last frame", stale, Verdict::Stale);
    let less = Link { step: observed(4, 0), ..candidate };
    let announced = Broken::Announced { epoch: 2, announced: 0, found: 1 };
    check("a candidate that read another log", less, broken(announced));
    assert_eq!(state.clone().accept(&next, Position(1)), broken(Broken::Position));
}

#[test]
fn nothing_counts_behind_a_seal_or_a_release() {
    let check = |step: Step, phase: Phase, follows: Verdict| {
        let mut state = begun();
        assert_eq!(state.accept(&link(&state.clone(), step), Position(2)), Verdict::Accepted);
        assert_eq!(state.phase(), phase);
        let late = link(&state, Step::Commit { revision: 2, commits: 1 });
        assert_eq!(state.accept(&late, Position(3)), Verdict::Superseded, "{step:?}");
        assert_eq!(state.accept(&announce(&state.clone(), 8), Position(4)), follows, "{step:?}");
    };
    let next = Generation { epoch: 1, suffix: 9 };
    check(Step::Seal { next }, Phase::Sealed(next), Verdict::Superseded);
    check(Step::Release, Phase::Open, Verdict::Accepted);
}

#[test]
fn a_later_generation_begins_with_its_snapshot() {
    let generation = Generation { epoch: 4, suffix: 9 };
    let new = Acceptor::new(0, generation);
    let first = Link { sequence: 0, owner: 7, ..link(&new, Step::Snapshot) };
    let check = |link: Link, expected: Verdict| assert_eq!(new.clone().accept(&link, Position(0)), expected);
    check(first, Verdict::Accepted);
    check(Link { sequence: 1, ..first }, Verdict::Gap);
    check(Link { epoch: 5, ..first }, Verdict::Broken(Broken::Epoch { epoch: 5, current: 4 }));
    check(Link { step: Step::Heartbeat, ..first }, Verdict::Broken(Broken::Misplaced));
    let elsewhere = Generation { epoch: 4, suffix: 8 }.genesis(0);
    check(Link { previous_hash: elsewhere, ..first }, Verdict::Broken(Broken::Chain { epoch: 4, sequence: 0 }));
    let mut state = new.clone();
    state.accept(&first, Position(0));
    let early = link(&state, Step::Commit { revision: 1, commits: 1 });
    assert_eq!(state.clone().accept(&early, Position(1)), Verdict::Broken(Broken::Misplaced));
    let opened = link(&state, Step::Opened { revision: 41, ordinal: 3 });
    assert_eq!(state.accept(&opened, Position(1)), Verdict::Accepted);
    assert_eq!((state.phase(), state.revision(), state.ordinal()), (Phase::Open, 41, 3));
}

#[test]
fn the_acknowledgement_rule_line_by_line() {
    let check = |what: &str, told: &[(u64, Told)], known: u64, then: Progress| {
        let mut window = Window::new(0, Position(10));
        (0..3).for_each(|_| {
            window.send();
        });
        told.iter().for_each(|(sequence, told)| window.told(*sequence, *told));
        let mut progress = window.progress();
        while matches!(progress, Progress::Accepted { .. }) {
            progress = window.progress();
        }
        assert_eq!((window.known(), progress), (known, then), "{what}");
    };
    let at = |position| Told::At(Position(position));
    check("nothing told", &[], 0, Progress::Wait);
    check("in a row", &[(1, at(11)), (2, at(12)), (3, at(13))], 3, Progress::Wait);
    check("told out of order", &[(3, at(13)), (1, at(11)), (2, at(12))], 3, Progress::Wait);
    check("the second is told first", &[(2, at(12))], 0, Progress::Wait);
    check(
        "the first is lost and the second takes its place",
        &[(1, Told::Nothing), (2, at(11))],
        0,
        Progress::ReadBack,
    );
    check("a run that does not begin at the anchor", &[(1, at(12)), (2, at(13))], 0, Progress::ReadBack);
    check("a gap in the run", &[(1, at(11)), (2, at(13)), (3, at(14))], 1, Progress::ReadBack);
    check("no position", &[(1, Told::Somewhere)], 0, Progress::ReadBack);
    let mut window = Window::new(0, Position(10));
    window.send();
    window.send();
    window.told(1, at(15));
    window.read_back(1, Position(17));
    window.told(2, at(18));
    assert_eq!(window.progress(), Progress::Accepted { sequence: 2, position: Position(18) });
    assert_eq!((window.out(), window.anchor()), (0, Position(18)));
}

#[test]
fn commands_are_forgotten_only_when_they_are_old_and_many() {
    let commit = |revision: u64, time_ms: u64| Commit {
        command: Some(Named { id: CommandId(revision.into()), hash: revision }),
        revision,
        time_ms,
        operations: Vec::new(),
    };
    let (many, age) = (limits::JOURNAL_COMMANDS as u64, limits::JOURNAL_COMMAND_AGE.as_millis() as u64);
    let mut heads = Heads::default();
    (1..=many + 10).for_each(|revision| heads.commit(&commit(revision, 1_000)).unwrap());
    assert!(heads.command(CommandId(1)).is_some(), "many, but young");
    heads.commit(&commit(many + 11, 1_000 + age)).unwrap();
    let forgotten = (1..=many + 11).filter(|id| heads.command(CommandId((*id).into())).is_none()).count();
    assert_eq!(forgotten, 11, "old, but only those beyond the count");
}

#[test]
fn a_commit_that_rests_on_another_state_is_refused() {
    let commit = |revision, expected| Commit {
        command: None,
        revision,
        time_ms: 0,
        operations: vec![Operation { key: Bytes::from("a"), expected, change: Change::Put("x".into()) }],
    };
    let mut heads = Heads::default();
    heads.commit(&commit(1, None)).unwrap();
    assert!(heads.commit(&commit(2, None)).is_err());
    assert!(heads.commit(&commit(3, Some(1))).is_err());
    heads.commit(&commit(2, Some(1))).unwrap();
    assert_eq!((heads.revision(), heads.bytes(), heads.len()), (2, 2, 1));
}
