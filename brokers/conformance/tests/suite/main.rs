//! The suite itself: it is complete, its documents are true, it passes on a broker in memory, and it finds faults.

mod lane;

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_backbone::testing::{Fault, MemoryBroker, MemoryLog};
use tidegate_backbone::{BoxFuture, Environment, Lane, LogId, PartitionLog, Record, Result};
use tidegate_conformance::{Case, Fixture, Need, cases, document, run, specification, table};

use lane::{Flaw, Lanes};

/// What becomes of which append, by its log and number.
type Script = fn(&LogId, u64) -> Fault;

/// A broker in memory, which keeps what it took when a client dies.
struct Memory {
    broker: MemoryBroker,
    client: Mutex<Option<Arc<MemoryLog>>>,
    fault: Script,
    lanes: Lanes,
}

impl Memory {
    fn make(fault: Script) -> Arc<dyn Fixture> {
        Self::on(MemoryBroker::default(), fault, Flaw::None)
    }

    fn on(broker: MemoryBroker, fault: Script, flaw: Flaw) -> Arc<dyn Fixture> {
        Arc::new(Self { broker, client: Mutex::new(None), fault, lanes: Lanes::new(flaw) })
    }
}

impl Fixture for Memory {
    fn open<'a>(&'a self, _environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>> {
        Box::pin(async move {
            let (fault, mut count) = (self.fault, 0);
            let client = self.broker.faulty(move |id: &LogId, _: &Record| {
                count += 1;
                fault(id, count)
            });
            *self.client.lock() = Some(Arc::clone(&client));
            Ok(client as Arc<dyn PartitionLog>)
        })
    }

    fn crash(&self) -> BoxFuture<'_, ()> {
        if let Some(client) = self.client.lock().take() {
            client.kill();
        }
        Box::pin(async {})
    }

    fn open_lane<'a>(&'a self, _environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn Lane>>> {
        Box::pin(async { Ok(Arc::new(self.lanes.clone()) as Arc<dyn Lane>) })
    }

    fn cut(&self, cut: bool) -> BoxFuture<'_, ()> {
        self.lanes.cut(cut);
        Box::pin(async {})
    }
}

/// Cases that ask of a broker what the one in memory does not have.
fn fits_memory(case: &Case) -> bool {
    // It has a clock of its own that counts appends, counts no bytes of events, and has no limit of a record's size.
    let by_age_or_bytes = case.id.starts_with("RET-");
    !by_age_or_bytes && !["PUB-10", "PUB-11", "PUB-20", "TAIL-04", "TAIL-09", "GRP-21", "GRP-35"].contains(&case.id)
}

#[test]
fn no_case_is_missing_without_its_reason() {
    let implemented: Vec<&str> = cases().iter().map(|case| case.id).collect();
    let unique: BTreeSet<&str> = implemented.iter().copied().collect();
    assert_eq!(unique.len(), implemented.len(), "an id stands twice");
    for id in specification::ids() {
        let reason = specification::LEFT_OUT.iter().find(|(left_out, _)| *left_out == id);
        match (unique.contains(id.as_str()), reason) {
            (true, None) => {}
            (false, Some((_, reason))) => assert!(!reason.is_empty(), "{id} has an empty reason"),
            (true, Some(_)) => panic!("{id} is implemented and left out"),
            (false, None) => panic!("{id} is specified, but neither implemented nor left out with a reason"),
        }
    }
    let specified: BTreeSet<String> = specification::ids().into_iter().collect();
    for (id, _) in specification::LEFT_OUT {
        assert!(specified.contains(*id), "{id} is left out, but not specified");
    }
}

#[test]
fn the_readme_lists_the_cases() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- cases -->\n", "<!-- end of cases -->");
    let (head, rest) = text.split_once(begin).expect("the README has the mark where the table begins");
    let (_, tail) = rest.split_once(end).expect("the README has the mark where the table ends");
    let expected = format!("{head}{begin}{}{end}{tail}", table(&cases()));
    if std::env::var_os("TIDEGATE_REWRITE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    } else {
        assert!(
            text == expected,
            "README.md differs; TIDEGATE_REWRITE=1 cargo test -p tidegate-conformance writes it anew"
        );
    }
}

#[test]
fn the_document_has_every_case_of_every_backbone() {
    if std::env::var_os("TIDEGATE_REWRITE").is_some() {
        document::rewrite();
    }
    let faults = document::faults();
    assert!(
        faults.is_empty(),
        "TIDEGATE_REWRITE=1 cargo test -p tidegate-conformance writes docs/conformance.md anew, and with each adapter's \
         --test conformance its column:\n{}",
        faults.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_in_memory_conforms() {
    conforms(&[Need::Reopen, Need::Crash, Need::Lane, Need::Cut], MemoryBroker::default, |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_slots_whose_positions_have_gaps_conforms() {
    // They count positions as if each were that of a record.
    let fits = |case: &Case| !["TAIL-06", "GRP-26"].contains(&case.id);
    conforms(&[Need::Reopen, Need::Crash, Need::Shared], || MemoryBroker::with_slots(3).with_gaps(), fits).await;
}

async fn conforms(met: &[Need], make: fn() -> MemoryBroker, fits: fn(&Case) -> bool) {
    let only = std::env::var("TIDEGATE_CASE").ok();
    let cases: Vec<Case> = cases().into_iter().filter(|case| fits_memory(case) && fits(case)).collect();
    let report = run(&cases, met, only.as_deref(), |_| Memory::on(make(), |_, _| Fault::None, Flaw::None)).await;
    let failures = report.failures();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// The control: a broker that breaks a promise fails the cases that are there for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_breaks_a_promise_does_not_conform() {
    let faults: [(&str, Script, &str); 2] =
        [("writes an append twice", twice, "PUB-05"), ("refuses now and then", refused, "PUB-04")];
    for (what, fault, id) in faults {
        let report = run(&cases(), &[], Some(id), |_| Memory::make(fault)).await;
        assert_eq!(report.failures().len(), 1, "a broker that {what} passes {id}");
    }
}

/// The same where positions have gaps and are counted for events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_counts_positions_does_not_conform() {
    let make = || MemoryBroker::with_slots(3).with_gaps();
    for (broker, failures) in [(make(), 0), (make().that_counts_positions(), 1)] {
        let on = |_: &Case| Memory::on(broker.clone(), |_, _| Fault::None, Flaw::None);
        let report = run(&cases(), &[], Some("GRP-62"), on).await;
        assert_eq!(report.failures().len(), failures, "{:?}", report.failures());
    }
}

/// The same for its lanes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_that_break_a_promise_do_not_conform() {
    for (flaw, id) in [(Flaw::NoBroadcast, "REQ-13"), (Flaw::Cuts, "REQ-14")] {
        let make = |_: &Case| Memory::on(MemoryBroker::default(), |_, _| Fault::None, flaw);
        let report = run(&cases(), &[Need::Lane, Need::Cut], Some(id), make).await;
        assert_eq!(report.failures().len(), 1, "{flaw:?} passes {id}");
    }
}

fn twice(id: &LogId, count: u64) -> Fault {
    if matches!(id, LogId::Topic { .. }) && count.is_multiple_of(500) { Fault::Twice } else { Fault::None }
}

fn refused(id: &LogId, count: u64) -> Fault {
    if matches!(id, LogId::Topic { .. }) && count.is_multiple_of(20) { Fault::Refused } else { Fault::None }
}
