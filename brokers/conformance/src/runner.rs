//! Runs cases, several at once: each has a broker of its own, so that none shares anything with another.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tidegate_backbone::{BoxFuture, Environment};

use crate::expect::{Failure, Outcome};
use crate::faults::{Faults, LEFT_OUT};
use crate::fixture::{Fixture, Need};
use crate::machine;
use crate::report::{Report, Result};

/// Against hanging alone: no case takes a tenth of it.
const CASE_TIMEOUT: Duration = Duration::from_secs(180);
/// The same where brokers die and come back, three nodes of them one after the other.
const FAULTED_CASE_TIMEOUT: Duration = Duration::from_secs(400);
/// Cases that run at once.
const CASES_AT_ONCE: usize = 4;

/// Cases of one run that may be tried again. Where more wait in vain, it is not the machine.
const LATE_CASES: usize = 4;

/// What a case is listed with for which this machine has no broker.
pub(crate) const NOT_HAD: &str = "this machine does not have what it needs";

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its id in the specification.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What it asks of the fixture.
    pub needs: &'static [Need],
    /// Runs it against a broker of its own.
    pub run: fn(Arc<dyn Fixture>) -> BoxFuture<'static, Outcome>,
}

impl Case {
    /// Whether its broker is taken away or cut off while it runs.
    pub fn is_faulted(&self) -> bool {
        self.needs.iter().any(|need| need.is_fault())
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Case").field("id", &self.id).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The contract was kept.
    Passed,
    /// It was not.
    Failed(Failure),
    /// It did not run, for that reason.
    NotRun(String),
}

/// Runs those cases whose needs the fixture meets and lists the others. `make` gives an empty broker for a case.
/// `only` is a part of an id, to run some of them. Of the cases that bring about faults of network and broker those are
/// run that `TIDEGATE_FAULTS` chooses, one after the other; all of them where `only` is given.
pub async fn run(cases: &[Case], met: &[Need], only: Option<&str>, make: impl Fn(&Case) -> Arc<dyn Fixture>) -> Report {
    let faults = if only.is_some() { Faults::All } else { Faults::from_environment() };
    run_with(cases, met, only, faults, |case| {
        let fixture = make(case);
        Box::pin(async move { Some(fixture) })
    })
    .await
}

/// What an adapter of a real broker offers: lanes, and a broker that the tests take away and put a proxy before.
const ON_BROKERS: [Need; 9] = [
    Need::Reopen,
    Need::Crash,
    Need::Shared,
    Need::Lane,
    Need::Cut,
    Need::Connection,
    Need::Restart,
    Need::Pause,
    Need::Nodes,
];

/// Runs the cases that the environment chooses (`TIDEGATE_CASE`, `TIDEGATE_FAULTS`) on a real broker.
pub async fn run_on_broker<'f>(
    cases: &[Case],
    make: impl Fn(&Case) -> BoxFuture<'f, Option<Arc<dyn Fixture>>>,
) -> Report {
    let only = std::env::var("TIDEGATE_CASE").ok();
    let faults = if only.is_some() { Faults::All } else { Faults::from_environment() };
    // What is asked of lanes is a matter of seconds, and is not asked while the others keep the machine busy.
    let (lanes, others): (Vec<Case>, Vec<Case>) = cases.iter().partition(|case| case.needs.contains(&Need::Lane));
    let report = run_with(&others, &ON_BROKERS, only.as_deref(), faults, |case| make(case)).await;
    let report = report.and(run_with(&lanes, &ON_BROKERS, only.as_deref(), faults, |case| make(case)).await);
    again(report, cases, |case| make(case)).await
}

/// Tries those once more, alone, that waited in vain, where they are few: brokers and clients on a machine that has too much to
/// do may take longer than anybody waits for them. What stands still for good does so again; a promise that was broken is not
/// tried again. Each is told as loudly as what this machine does not have.
async fn again<'a>(
    mut report: Report,
    cases: &'a [Case],
    make: impl Fn(&'a Case) -> BoxFuture<'a, Option<Arc<dyn Fixture>>>,
) -> Report {
    let is_late = |result: &Result| matches!(&result.ended, Ended::Failed(failure) if failure.is_late());
    if report.results.iter().filter(|result| is_late(result)).count() > LATE_CASES {
        return report;
    }
    for result in report.results.iter_mut().filter(|result| is_late(result)) {
        let Some(case) = cases.iter().find(|case| case.id == result.id) else { continue };
        let Ended::Failed(failure) = &result.ended else { continue };
        let reason = format!("it passed at the second attempt only; at the first: {failure}");
        *result = run_one(case, &ON_BROKERS, &make, Environment::system()).await;
        print(result);
        if result.ended == Ended::Passed {
            machine::unsteady(case.id, &reason);
        }
    }
    report
}

/// The same for brokers that take their time to start: `make` gives none where the machine cannot have what the case
/// needs, which it has said by then.
pub async fn run_with<'a>(
    cases: &'a [Case],
    met: &'a [Need],
    only: Option<&str>,
    faults: Faults,
    make: impl Fn(&'a Case) -> BoxFuture<'a, Option<Arc<dyn Fixture>>>,
) -> Report {
    let environment = Environment::system();
    let chosen = cases.iter().filter(|case| only.is_none_or(|only| case.id.contains(only)));
    let (faulted, plain): (Vec<&Case>, Vec<&Case>) = chosen.partition(|case| case.is_faulted());
    // Lazily: the brokers of all cases would be there at once otherwise.
    let running = plain.into_iter().map(|case| run_one(case, met, &make, environment.clone()));
    let mut results =
        futures_util::stream::iter(running).buffer_unordered(CASES_AT_ONCE).inspect(print).collect::<Vec<_>>().await;
    let began = tokio::time::Instant::now();
    for case in faults.order(faulted) {
        let result = if faults.goes_on(began.elapsed()) {
            run_one(case, met, &make, environment.clone()).await
        } else {
            Result { id: case.id, title: case.title, ended: Ended::NotRun(LEFT_OUT.to_owned()) }
        };
        print(&result);
        results.push(result);
    }
    Report::new(results)
}

fn run_one<'a>(
    case: &'a Case,
    met: &'a [Need],
    make: &impl Fn(&'a Case) -> BoxFuture<'a, Option<Arc<dyn Fixture>>>,
    environment: Environment,
) -> BoxFuture<'a, Result> {
    let missing: Vec<String> = case.needs.iter().filter(|need| !met.contains(need)).map(Need::to_string).collect();
    let result = |ended| Result { id: case.id, title: case.title, ended };
    if !missing.is_empty() {
        let reason = format!("the fixture does not offer: {}", missing.join(", "));
        return Box::pin(std::future::ready(result(Ended::NotRun(reason))));
    }
    let making = make(case);
    let task = case.run;
    let faulted = case.is_faulted();
    let timeout = if faulted { FAULTED_CASE_TIMEOUT } else { CASE_TIMEOUT };
    Box::pin(async move {
        let Some(fixture) = making.await else {
            return result(Ended::NotRun(NOT_HAD.to_owned()));
        };
        // A task of its own, so that a panic in it is the failure of this case alone.
        let mut task = environment.spawn(task(fixture));
        let ended = match tokio::time::timeout(timeout, &mut task).await {
            Ok(Ok(Ok(()))) => Ended::Passed,
            Ok(Ok(Err(failure))) => Ended::Failed(failure),
            Ok(Err(panic)) => Ended::Failed(Failure::new(format!("it panicked: {panic}"))),
            Err(_) => {
                task.abort();
                Ended::Failed(Failure::late(format!("it did not end within {} s", timeout.as_secs())))
            }
        };
        result(ended)
    })
}

#[expect(clippy::print_stdout, reason = "one line for each case is what a runner is for")]
fn print(result: &Result) {
    match &result.ended {
        Ended::Passed => println!("{}  passed   {}", result.id, result.title),
        Ended::Failed(failure) => println!("{}  FAILED   {}\n         {failure}", result.id, result.title),
        Ended::NotRun(reason) => println!("{}  not run  {}: {reason}", result.id, result.title),
    }
}
