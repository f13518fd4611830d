use super::*;

const ME: NodeId = NodeId(1 << 16);
const OTHER: NodeId = NodeId(2 << 16);

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn first() -> Outlook {
    Outlook { may_own: true, rank: 0, elsewhere: false, unanswered: false }
}

/// A follower whose log is read every 10 ms, in a world that says at what times the owner writes, and when the broker
/// answers; gives when it announces itself.
fn announces(
    rank: u32,
    until: u64,
    writes: impl Fn(u64) -> bool,
    answers: impl Fn(u64) -> bool,
    jump: impl Fn(u64) -> u64,
) -> Option<u64> {
    announces_late(rank, until, writes, answers, jump, |_| 0)
}

/// The same where an answer to what was asked then takes so long.
fn announces_late(
    rank: u32,
    until: u64,
    writes: impl Fn(u64) -> bool,
    answers: impl Fn(u64) -> bool,
    jump: impl Fn(u64) -> u64,
    takes: impl Fn(u64) -> u64,
) -> Option<u64> {
    let timeout = u64::try_from(limits::CLAIM_PROBE_TIMEOUT.as_millis()).unwrap();
    let mut machine = Machine::new(ME, at(0));
    machine.frame(at(0), Some(OTHER), false);
    let mut asked: Option<u64> = None;
    for step in (0..until).step_by(10) {
        let now = at(step + jump(step));
        if answers(step) {
            if writes(step) {
                machine.frame(now, Some(OTHER), false);
                machine.sign(now);
            }
            if let Some(asked) = asked.take_if(|asked| step - *asked >= takes(*asked)) {
                machine.answered(now, at(step - asked));
            }
        }
        asked = asked.filter(|asked| step - asked < timeout);
        match machine.next(now, Outlook { rank, ..first() }) {
            Next::Probe if asked.is_some() => {}
            Next::Probe => {
                machine.probing(now);
                asked = Some(step);
            }
            Next::Announce => return Some(step),
            Next::Wait(then) => assert!(then > now, "it waits for what is over at {step}"),
            Next::Release => panic!("a follower releases nothing"),
        }
    }
    None
}

#[test]
fn silence_counts_while_the_log_is_read_to_its_end() {
    let never = |_: u64| 0;
    // An owner that writes is left alone.
    assert_eq!(announces(0, 60_000, |at| at.is_multiple_of(500), |_| true, never), None);
    // One that stops is replaced after two seconds, later by those that come later.
    let stops = |at: u64| at.is_multiple_of(500) && at <= 5_000;
    assert_eq!(announces(0, 60_000, stops, |_| true, never), Some(7_000));
    assert_eq!(announces(1, 60_000, stops, |_| true, never), Some(7_300));
    assert_eq!(announces(3, 60_000, stops, |_| true, never), Some(7_900));
    // A broker that is away is no silent owner: nothing moves for ten minutes, and then the owner has time to be heard.
    let back = |at: u64| at <= 5_000 || at >= 600_000;
    assert_eq!(announces(0, 700_000, |at| at.is_multiple_of(500), back, never), None);
    let later = |at: u64| at <= 5_000 || at >= 603_800;
    assert_eq!(announces(0, 700_000, |at| later(at) && at.is_multiple_of(500), back, never), None);
    // Control: where it is not heard then, it is replaced.
    let found = announces(0, 700_000, |at| at <= 5_000, back, never).unwrap();
    assert!((604_000..=604_600).contains(&found), "{found}");
    // A broker that answers now and then only is away as well.
    let rarely = |at: u64| at % 3_000 < 200;
    assert_eq!(announces(0, 60_000, |_| false, rarely, never), None);
}

#[test]
fn a_slow_broker_is_waited_for_and_an_owner_that_is_silent_there_is_replaced() {
    let never = |_: u64| 0;
    let stops = |at: u64| at.is_multiple_of(500) && at <= 5_000;
    for takes in [600, 1_000, 1_400] {
        let found = announces_late(0, 60_000, stops, |_| true, never, |_| takes).unwrap();
        assert!((7_000..=12_500).contains(&found), "{takes} ms: {found}");
        // Some answers are late, and others prompt.
        let mixed = |at: u64| if (at / 10).is_multiple_of(3) { takes } else { 20 };
        let found = announces_late(0, 60_000, stops, |_| true, never, mixed).unwrap();
        assert!((7_000..=12_500).contains(&found), "{takes} ms now and then: {found}");
        // Control: one whose frames take as long as the answers is left alone.
        let writes = |at: u64| at.is_multiple_of(500 + takes);
        assert_eq!(announces_late(0, 60_000, writes, |_| true, never, |_| takes), None);
    }
    // One that answers nothing in time is away.
    assert_eq!(announces_late(0, 60_000, stops, |_| true, never, |_| 1_600), None);
}

#[test]
fn a_machine_that_slept_begins_to_count_anew() {
    let slept = |at: u64| if at >= 5_600 { 3_600_000 } else { 0 };
    let stops = |at: u64| at.is_multiple_of(500) && at <= 5_500;
    // It wakes 0.1 s after the last frame was read, an hour later by the clock.
    let found = announces(0, 60_000, stops, |_| true, slept).unwrap();
    assert!((9_500..=10_000).contains(&found), "{found}");
    // The owner goes on as well: it is not replaced.
    assert_eq!(announces(0, 60_000, |at| at.is_multiple_of(500), |_| true, slept), None);
}

/// What a machine does at that moment that has just read to the end of the log.
fn then(machine: &mut Machine, now: u64, outlook: Outlook) -> Next {
    machine.sign(at(now));
    machine.next(at(now), outlook)
}

#[test]
fn a_release_and_a_new_slot_are_followed_in_the_order_of_candidates() {
    for (owner, released) in [(None, false), (Some(OTHER), true), (Some(ME), true)] {
        let mut machine = Machine::new(ME, at(0));
        machine.frame(at(100), owner, released);
        assert_eq!(machine.next(at(100), first()), Next::Probe, "not before the end was seen");
        assert_eq!(then(&mut machine, 110, first()), Next::Announce);
        let second = Outlook { rank: 1, ..first() };
        assert_eq!(then(&mut machine, 110, second), Next::Wait(at(360)));
        assert_eq!(then(&mut machine, 400, second), Next::Announce);
        let barred = Outlook { may_own: false, ..first() };
        assert!(matches!(then(&mut machine, 9_000, barred), Next::Wait(_)));
    }
    // Control: an owner that has not released is waited for.
    let mut machine = Machine::new(ME, at(0));
    machine.frame(at(100), Some(OTHER), false);
    assert!(matches!(then(&mut machine, 110, first()), Next::Wait(_)));
}

#[test]
fn an_announce_of_its_own_that_came_late_is_followed_by_another() {
    let mut machine = Machine::new(ME, at(0));
    machine.follows(at(100), Some(OTHER), true, at(300));
    assert!(matches!(then(&mut machine, 200, first()), Next::Wait(_)), "not at once after one that failed");
    machine.frame(at(210), Some(ME), false);
    assert!(matches!(then(&mut machine, 220, first()), Next::Wait(_)));
    assert_eq!(then(&mut machine, 400, Outlook { rank: 5, ..first() }), Next::Announce);
}

#[test]
fn an_owner_moves_only_when_the_slot_belongs_elsewhere_for_a_while() {
    let away = Outlook { elsewhere: true, ..first() };
    let mut machine = Machine::new(ME, at(0));
    machine.opened();
    assert!(matches!(machine.next(at(0), first()), Next::Wait(_)));
    // Members that come and go move nothing.
    for flap in 0..20 {
        assert!(matches!(machine.next(at(flap * 2_000), away), Next::Wait(_)));
        assert!(matches!(machine.next(at(flap * 2_000 + 1_900), away), Next::Wait(_)));
        assert!(matches!(machine.next(at(flap * 2_000 + 1_950), first()), Next::Wait(_)));
    }
    assert!(matches!(machine.next(at(50_000), away), Next::Wait(_)));
    assert_eq!(machine.next(at(52_000), away), Next::Release);
    // One that leaves does so at once.
    let mut machine = Machine::new(ME, at(0));
    machine.opened();
    assert_eq!(machine.next(at(0), Outlook { may_own: false, ..first() }), Next::Release);
}

#[test]
fn who_is_not_answered_asks_whatever_it_reads() {
    let mut machine = Machine::new(ME, at(0));
    machine.frame(at(0), Some(OTHER), false);
    let unanswered = Outlook { unanswered: true, ..first() };
    machine.probing(at(0));
    let mut asked = 0;
    for step in (0..10_000).step_by(10) {
        if step % 500 == 0 {
            machine.frame(at(step), Some(OTHER), false);
            machine.sign(at(step));
        }
        // Control: where others were answered, what is read is enough.
        assert!(matches!(machine.next(at(step), first()), Next::Wait(_)));
        if machine.next(at(step), unanswered) == Next::Probe {
            machine.probing(at(step));
            asked += 1;
        }
    }
    assert_eq!(asked, 18, "no more often than else");
}
