//! The faulted cases pass on a client that keeps its promises, and find those that it breaks.

mod remote;

use std::sync::Arc;

use remote::{Broken, Remote};
use tidegate_conformance::{Case, Faults, Fixture, Need, Report, cases, run_with};

const MET: [Need; 4] = [Need::Connection, Need::Restart, Need::Pause, Need::Nodes];

async fn faulted(broken: Broken, chosen: impl Fn(&Case) -> bool) -> Report {
    let all = cases();
    let cases: Vec<Case> = all.into_iter().filter(|case| case.is_faulted() && chosen(case)).collect();
    assert!(!cases.is_empty(), "no case is chosen");
    let make = |_: &Case| -> tidegate_backbone::BoxFuture<'_, _> {
        Box::pin(async move { Some(Remote::start(broken).await as Arc<dyn Fixture>) })
    };
    run_with(&cases, &MET, std::env::var("TIDEGATE_CASE").ok().as_deref(), Faults::All, make).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_keeps_its_promises_passes() {
    let failures = faulted(Broken::Nothing, |_| true).await.failures();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// The control: each broken promise is found by the case that is there for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_one_does_not() {
    if std::env::var_os("TIDEGATE_CASE").is_some() {
        return;
    }
    let broken = [
        (Broken::TellsUnknown, "PUB-12"),
        (Broken::TellsNo, "PUB-13"),
        (Broken::GivesUp, "PUB-15"),
        (Broken::GivesUpLater, "PUB-16"),
        (Broken::Loses, "PUB-21"),
        (Broken::Loses, "PUB-17"),
        (Broken::Rereads, "TAIL-11"),
        (Broken::NeverNotices, "GRP-30"),
        (Broken::Invents, "JRN-18"),
        (Broken::Invents, "JRN-20"),
        (Broken::Invents, "JRN-35"),
    ];
    // All at once: each has a broker of its own, and most of them wait.
    let runs = broken.map(|(broken, id)| async move { (broken, id, faulted(broken, |case| case.id == id).await) });
    for (broken, id, report) in futures_util::future::join_all(runs).await {
        assert_eq!(report.failures().len(), 1, "{id} does not find a client that {broken:?}");
    }
}
