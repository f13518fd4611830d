//! Faults of the network and of the broker's processes amid publishing and delivery: nothing that was acknowledged is lost, what
//! is told of an outcome is true, and everything goes on by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tidegate_backbone::catalogue::Topic;
use tidegate_backbone::consume::Start;
use tidegate_backbone::{Applied, ErrorKind, PartitionLog as _, Position, Stored};
use tokio::sync::watch;

use super::table;
use crate::broker::Act;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::process::{Process, event, event_of, subscription};
use crate::proxy::Direction;
use crate::runner::Case;

/// How long a broker is away that comes back: longer than clients wait for any one answer.
const OUTAGE: Duration = Duration::from_secs(15);
/// Attempts to connect after which a client that gives up has done so; or the time in which it might have made them.
const ATTEMPTS: (u64, Duration) = (12, Duration::from_secs(60));

pub(super) fn cases() -> Vec<Case> {
    table! {
        "PUB-12" "what cannot be written, because the connection is gone, is told as not stored, and is not" [Connection] before_write;
        "PUB-13" "a cut before the acknowledgement is told as unknown; a retry stores at most one copy more" [Connection] before_acknowledgement;
        "PUB-15" "publishing and delivery go on by themselves after the broker was away" [Restart] away;
        "PUB-16" "a client that was refused for longer than it tries connects all the same" [Connection] refused;
        "PUB-17" "no node that dies under load loses or reorders what was acknowledged" [Nodes] nodes;
        "PUB-21" "no event that was acknowledged is missing after the broker was killed amid publishing" [Restart] killed;
        "TAIL-11" "a tail gives every record once and in order while nodes die" [Nodes] tail;
        "GRP-30" "a connection that falls silent without an end is noticed, and deliveries go on over another" [Connection] silent;
    }
}

/// Waits for that within the fixture's patience.
pub(super) async fn patiently<T>(
    fixture: &Arc<dyn Fixture>,
    what: &str,
    doing: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::time::timeout(fixture.patience(), doing).await.map_err(|_| Failure::late(format!("expected that {what}")))
}

/// Publishes until it is acknowledged, as whoever publishes does; gives how often it was tried.
async fn publish(
    fixture: &Arc<dyn Fixture>,
    process: &Process,
    topic: &Topic,
    id: &str,
    key: &str,
) -> Result<usize, Failure> {
    let publisher = &process.publisher;
    let trying = async {
        let mut tries = 1;
        while let Err(error) = publisher.publish(topic, event(id, key), Duration::from_secs(10)).await {
            if *error.kind() == ErrorKind::Closed {
                return Err(Failure::new(format!("expected that {id} is taken after the fault, seen {error}")));
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(tries)
    };
    patiently(fixture, &format!("{id} is taken before long after the fault"), trying).await?
}

/// The events of the first partition up to its end, in order: where each stands, and its id.
async fn standing(
    fixture: &Arc<dyn Fixture>,
    process: &Process,
    topic: &Topic,
) -> Result<Vec<(Position, String)>, Failure> {
    let reading = async {
        loop {
            match process.records(&topic.log(0), Position::ZERO).await {
                Ok(records) => return records.iter().map(place).collect(),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    };
    patiently(fixture, "the topic can be read again", reading).await?
}

fn place(stored: &Stored) -> Result<(Position, String), Failure> {
    Ok((stored.position, event_of(stored)?.id().to_string()))
}

/// The ids of the events of the first partition, in order.
async fn stored(fixture: &Arc<dyn Fixture>, process: &Process, topic: &Topic) -> Result<Vec<String>, Failure> {
    Ok(standing(fixture, process, topic).await?.into_iter().map(|(_, id)| id).collect())
}

fn copies(ids: &[String], id: &str) -> usize {
    ids.iter().filter(|stored| *stored == id).count()
}

pub(super) fn each(fixture: &Arc<dyn Fixture>, act: impl Fn(&crate::proxy::Proxy)) {
    fixture.proxies().iter().for_each(act);
}

async fn before_write(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::join(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    publish(&fixture, &process, &topic, "before", "k").await?;
    each(&fixture, crate::proxy::Proxy::refuse);
    let mut told = Vec::new();
    for n in 0..12 {
        let id = format!("cut-{n}");
        let seen = process.publisher.publish(&topic, event(id.clone(), "k"), fixture.patience()).await;
        let error = seen
            .err()
            .ok_or_else(|| Failure::new(format!("expected no receipt without a connection, seen one for {id}")))?;
        told.push((id, error.applied()));
        if told.iter().filter(|(_, applied)| *applied == Applied::No).count() == 3 {
            break;
        }
    }
    each(&fixture, crate::proxy::Proxy::heal);
    publish(&fixture, &process, &topic, "after", "k").await?;
    let ids = stored(&fixture, &process, &topic).await?;
    for (id, applied) in &told {
        let most = usize::from(*applied == Applied::Unknown);
        holds("what is told of the outcome is true", copies(&ids, id) <= most, (id, applied, &ids))?;
    }
    let certain = told.iter().filter(|(_, applied)| *applied == Applied::No).count();
    holds("three are told as not stored", certain == 3, &told)
}

async fn before_acknowledgement(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::join(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    publish(&fixture, &process, &topic, "before", "k").await?;
    let sent = || fixture.proxies().iter().map(|proxy| proxy.bytes(Direction::ToBroker)).sum::<u64>();
    let connections = || fixture.proxies().iter().map(crate::proxy::Proxy::connections).sum::<u64>();
    let (sent_before, connections_before) = (sent(), connections());
    each(&fixture, |proxy| proxy.hold(Direction::FromBroker));
    let publishing: Vec<_> = (0..40)
        .map(|n| process.publisher.publish(&topic, event(n.to_string(), &format!("k{}", n % 4)), fixture.patience()))
        .collect();
    let publishing = process.environment.spawn(join_all(publishing));
    let written = async {
        // More than one event's worth, so that events were written and are not acknowledged.
        while sent() < sent_before + 1_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    patiently(&fixture, "events are written", written).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    each(&fixture, crate::proxy::Proxy::cut);
    each(&fixture, crate::proxy::Proxy::heal);
    let results = patiently(&fixture, "every publish is answered", publishing).await??;
    let first_try: Vec<bool> = results.iter().map(Result::is_ok).collect();
    let ids = stored(&fixture, &process, &topic).await?;
    for (n, result) in results.iter().enumerate() {
        let count = copies(&ids, &n.to_string());
        match result {
            Ok(_) => same("copies of what was acknowledged", count, 1)?,
            Err(error) if error.applied() == Applied::No => same("copies of what is told as not stored", count, 0)?,
            Err(_) => holds("what is unknown is there once at most", count <= 1, (n, count))?,
        }
    }
    for (n, acknowledged) in first_try.iter().enumerate() {
        if !acknowledged {
            publish(&fixture, &process, &topic, &n.to_string(), &format!("k{}", n % 4)).await?;
        }
    }
    let ids = stored(&fixture, &process, &topic).await?;
    for n in 0..40 {
        let count = copies(&ids, &n.to_string());
        holds("an event is there, with one copy more at most", (1..=2).contains(&count), (n, count))?;
    }
    let acknowledged: Vec<usize> = (0..40).filter(|n| first_try[*n]).collect();
    in_order(&ids, &acknowledged)?;
    holds("another connection was needed", connections() > connections_before, connections())
}

/// Numbers keep their order in a list of ids, by the first place of each.
fn in_order(ids: &[String], numbers: &[usize]) -> Outcome {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, id) in ids.iter().enumerate() {
        first.entry(id).or_insert(place);
    }
    let places: Vec<Option<usize>> = numbers.iter().map(|n| first.get(n.to_string().as_str()).copied()).collect();
    let wrong = places.windows(2).position(|pair| pair[0] >= pair[1] || pair[0].is_none());
    holds("what was acknowledged stands in the order of publishing", wrong.is_none(), wrong.map(|at| &numbers[at..]))
}

async fn away(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::join(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Earliest).await?;
    publish(&fixture, &process, &topic, "before", "k").await?;
    same("before", sink.take(1).await?, vec!["before".to_owned()])?;
    fixture.act(Act::Kill, None).await;
    let meanwhile = process.publisher.publish(&topic, event("meanwhile", "k"), OUTAGE).await;
    holds("nothing is acknowledged while the broker is away", meanwhile.is_err(), &meanwhile)?;
    tokio::time::sleep(OUTAGE).await;
    fixture.act(Act::Restart, None).await;
    publish(&fixture, &process, &topic, "after", "k").await?;
    // What was told as unknown may have come through.
    let delivering = async {
        while sink.take(1).await? != ["after"] {}
        Ok::<_, Failure>(())
    };
    patiently(&fixture, "deliveries go on", delivering).await?
}

async fn refused(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::join(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Earliest).await?;
    publish(&fixture, &process, &topic, "before", "k").await?;
    let attempts = || fixture.proxies().iter().map(crate::proxy::Proxy::attempts).sum::<u64>();
    let before = attempts();
    each(&fixture, crate::proxy::Proxy::refuse);
    let enough = async {
        while attempts() < before + ATTEMPTS.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let tried = tokio::time::timeout(ATTEMPTS.1, enough).await;
    holds("it tries to connect", tried.is_ok() || attempts() > before, attempts() - before)?;
    each(&fixture, crate::proxy::Proxy::heal);
    publish(&fixture, &process, &topic, "after", "k").await?;
    same("deliveries", sink.take(2).await?, vec!["before".to_owned(), "after".to_owned()])
}

/// Publishes numbered events one batch after the other until it is told to stop, each again until it is acknowledged.
struct Storm {
    stop: Arc<AtomicBool>,
    /// The numbers, with whether the first try was acknowledged.
    task: tokio::task::JoinHandle<Vec<(usize, bool)>>,
}

/// What a storm publishes at least.
const STORM_EVENTS: usize = 100;

impl Storm {
    fn start(process: &Process, topic: &Arc<Topic>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (publisher, topic, stopped) = (process.publisher.clone(), Arc::clone(topic), Arc::clone(&stop));
        let task = process.environment.spawn(async move {
            let mut acknowledged = Vec::new();
            for batch in 0.. {
                // A broker may take nothing for as long as its nodes die; it has to afterwards.
                if stopped.load(Ordering::SeqCst) && acknowledged.len() >= STORM_EVENTS {
                    break;
                }
                let mut left: BTreeSet<usize> = (batch * 20..batch * 20 + 20).collect();
                let mut first = true;
                while !left.is_empty() {
                    let publishing: Vec<_> = left
                        .iter()
                        .map(|n| publisher.publish(&topic, event(n.to_string(), "k"), Duration::from_secs(10)))
                        .collect();
                    let seen = join_all(publishing).await;
                    let taken: Vec<usize> =
                        left.iter().zip(&seen).filter(|(_, seen)| seen.is_ok()).map(|(n, _)| *n).collect();
                    for n in taken {
                        left.remove(&n);
                        acknowledged.push((n, first));
                    }
                    first = false;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            acknowledged
        });
        Self { stop, task }
    }

    /// Stops it, and looks whether all that was acknowledged is there and in order.
    async fn check(self, fixture: &Arc<dyn Fixture>, process: &Process, topic: &Topic) -> Outcome {
        self.stop.store(true, Ordering::SeqCst);
        let mut acknowledged = patiently(fixture, "publishing goes on after the fault", self.task).await??;
        acknowledged.sort_unstable();
        holds("events were published", acknowledged.len() >= STORM_EVENTS, acknowledged.len())?;
        let ids = stored(fixture, process, topic).await?;
        let there: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        let missing: Vec<usize> =
            acknowledged.iter().map(|(n, _)| *n).filter(|n| !there.contains(n.to_string().as_str())).collect();
        holds("no event that was acknowledged is missing", missing.is_empty(), &missing)?;
        let first: Vec<usize> = acknowledged.iter().filter(|(_, first)| *first).map(|(n, _)| *n).collect();
        in_order(&ids, &first)
    }
}

async fn killed(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::join(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let storm = Storm::start(&process, &topic);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        fixture.act(Act::Restart, None).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    storm.check(&fixture, &process, &topic).await
}

async fn nodes(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::join(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let storm = Storm::start(&process, &topic);
    for node in 1..=3 {
        fixture.act(Act::Kill, Some(node)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        fixture.act(Act::Restart, Some(node)).await;
    }
    storm.check(&fixture, &process, &topic).await
}

async fn tail(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::join(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let (log, id) = (Arc::clone(&process.log), topic.log(0));
    let storm = Storm::start(&process, &topic);
    let end = watch::Sender::new(None);
    let mut until = end.subscribe();
    let reading = process.environment.spawn(async move {
        let (mut seen, mut from) = (Vec::new(), Position::ZERO);
        let mut end: Option<Position> = None;
        loop {
            // As every reader of the product does, it is opened anew where it fails, at the place where it stood.
            let Ok(mut tail) = log.tail(&id, from).await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            loop {
                if end.is_some_and(|end| from >= end) {
                    return seen;
                }
                tokio::select! {
                    batch = tail.next(64 * 1024) => match batch {
                        Ok(batch) => seen.extend(batch.records),
                        Err(_) => break,
                    },
                    told = until.wait_for(|told| *told != end) => match told {
                        Ok(told) => end = *told,
                        Err(_) => return seen,
                    },
                }
                from = tail.position();
            }
        }
    });
    for node in 1..=3 {
        fixture.act(Act::Restart, Some(node)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    storm.check(&fixture, &process, &topic).await?;
    let stored = standing(&fixture, &process, &topic).await?;
    end.send_replace(stored.last().map(|(last, _)| last.next()));
    let seen = patiently(&fixture, "the tail comes to the end", reading).await??;
    let seen = seen.iter().map(place).collect::<Result<Vec<_>, Failure>>()?;
    let back = seen.windows(2).find(|pair| pair[0].0 >= pair[1].0);
    holds("it never goes back", back.is_none(), back)?;
    let other = (0..seen.len().max(stored.len())).find(|at| seen.get(*at) != stored.get(*at));
    let other = other.map(|at| (at, seen.get(at), stored.get(at), seen.len(), stored.len()));
    holds("it gave what is stored", other.is_none(), other)
}

async fn silent(fixture: Arc<dyn Fixture>) -> Outcome {
    let process = Process::join(&fixture, &Arc::default()).await?;
    let topic = process.topic("orders", 1).await?;
    let sink = process.subscribe(subscription("s", "orders"), Start::Earliest).await?;
    publish(&fixture, &process, &topic, "before", "k").await?;
    same("before", sink.take(1).await?, vec!["before".to_owned()])?;
    let connections = || fixture.proxies().iter().map(crate::proxy::Proxy::connections).sum::<u64>();
    let before = connections();
    each(&fixture, crate::proxy::Proxy::strand);
    for n in 0..5 {
        publish(&fixture, &process, &topic, &n.to_string(), "k").await?;
    }
    let mut seen = BTreeSet::new();
    let delivering = async {
        while seen.len() < 5 {
            seen.extend(sink.take(1).await?);
        }
        Ok::<_, Failure>(())
    };
    patiently(&fixture, "deliveries go on", delivering).await??;
    same("deliveries", seen, (0..5).map(|n: i32| n.to_string()).collect())?;
    holds("it is another connection", connections() > before, (before, connections()))
}
