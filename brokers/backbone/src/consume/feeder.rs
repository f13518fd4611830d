//! Reading for one subscription alone: where it is behind the router, and where lanes that fell behind read their
//! events again.

mod load;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidegate_schemas::{Event, limits};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

use super::Shared;
use super::core::{Core, Feed, Partition, Site};
use super::dedupe::{Window, identity};
use super::outcomes::{Ending, Outcome};
use super::progress::Offered;
use super::router::{Joining, READ_BYTES, Router, open_judged};
use crate::error::{ErrorKind, Result};
use crate::log::{Position, Record, Stored, Tail};

/// Reads that go on at once beside those of the routers, in the whole process.
pub(super) const READERS: usize = 16;
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// How long a reader is kept for a subscription that has no room. What it knows of duplicates takes memory; to find that
/// out again takes reading a whole window.
const READER_IDLE: Duration = Duration::from_secs(10);
/// How long one partition is waited for that gives nothing, while others may have something.
const READ_WAIT: Duration = Duration::from_secs(1);
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// A reader that knows which events are duplicates.
struct Reader {
    tail: Box<dyn Tail>,
    /// Where the router's knowledge does not reach.
    window: Option<Window>,
    /// Read, not yet looked at.
    rest: VecDeque<Stored>,
    /// Looked at, and wanted, but there was no room for it.
    held: Option<(Position, u64, Arc<Event>)>,
    /// What it gives next.
    next: Position,
}

impl Reader {
    async fn open(shared: &Shared, router: &Router, from: Position) -> Result<Self> {
        let (window, tail) = if from >= router.known_from() {
            (None, shared.log.tail(&router.partition.log(), from).await?)
        } else {
            let (window, tail) = open_judged(shared.log.as_ref(), &router.partition, from, router.window()).await?;
            (Some(window), tail)
        };
        Ok(Self { tail, window, rest: VecDeque::new(), held: None, next: from })
    }

    /// Whether it goes on at that position and still knows, with the router's help, what is a duplicate.
    fn fits(&self, router: &Router, from: Position) -> bool {
        self.next == from && (self.window.is_some() || from >= router.known_from())
    }

    fn is_duplicate(&mut self, router: &Router, position: Position, appended_at: u64, identity: u128) -> bool {
        let judged = self.window.as_mut().map(|window| window.observe(identity, appended_at));
        router.is_duplicate(position).or(judged).unwrap_or(false)
    }
}

/// Runs until the subscription is closed.
pub(super) async fn run(shared: Arc<Shared>, core: Arc<Core>, readers: Arc<Semaphore>) {
    let stopping = shared.environment.stopping().clone();
    let mut open: HashMap<Site, Reader> = HashMap::new();
    let mut loaded_at: Option<Instant> = None;
    loop {
        let now = shared.environment.clock.unix_milliseconds();
        let rests = loaded_at.map_or(Duration::ZERO, |at| limits::RETRY_LOAD_INTERVAL.saturating_sub(at.elapsed()));
        let Some(work) = core.work(now, rests.is_zero()) else { return };
        let mut failed = false;
        let busy = !work.loads.is_empty() || !work.reads.is_empty();
        open.retain(|site, _| core.reads_itself(site));
        for (site, wanted) in work.loads {
            let Ok(_permit) = readers.acquire().await else { return };
            failed |= !load::run(&shared, &core, &site, wanted).await;
            loaded_at = Some(Instant::now());
        }
        for (site, from) in work.reads {
            let partition = &site.partition;
            let Ok(_permit) = readers.acquire().await else { return };
            if let Err(error) = read_on(&shared, &core, &site, from, &mut open).await {
                open.remove(&site);
                if core.key_from(&site).is_none() {
                    continue;
                }
                if let ErrorKind::PositionLost { earliest } = error.kind()
                    && core.begins_first(partition)
                {
                    core.read_to(site.as_ref(), *earliest);
                    continue;
                }
                failed = true;
                if let ErrorKind::PositionLost { earliest } = error.kind() {
                    warn!(subscription = %core.subscription().spec.name, topic = %partition.topic, %from, to = %earliest,
                        "events were trimmed before this subscription had them");
                    let range = (from, *earliest);
                    trimmed(&shared, &core, partition, range, "trimmed before this subscription had read so far");
                    core.read_to(site.as_ref(), *earliest);
                } else {
                    warn!(subscription = %core.subscription().spec.name, topic = %partition.topic, %error, "cannot read; trying again");
                }
            }
        }
        if stopping.is_cancelled() {
            return;
        }
        if busy && !failed {
            tokio::task::yield_now().await;
            continue;
        }
        if failed {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(RETRY_DELAY) => {}
            }
            continue;
        }
        let rest = if work.gathers { rests } else { IDLE_WAIT };
        let due = work.next_due.map_or(IDLE_WAIT, |due| Duration::from_millis(due.saturating_sub(now).max(1)));
        let due = due.min(rest);
        let pause = if open.is_empty() { due } else { due.min(READER_IDLE) };
        tokio::select! {
            () = stopping.cancelled() => return,
            () = core.feed.notified() => {}
            () = tokio::time::sleep(pause) => {
                if pause == READER_IDLE {
                    open.clear();
                }
            }
        }
    }
}

/// Tells that events are lost to a subscription. Nothing is known of them but their places, so that there is no dead
/// letter: it would be one without an event.
fn trimmed(shared: &Shared, core: &Core, partition: &Partition, (from, until): (Position, Position), what: &str) {
    let count = until.0.saturating_sub(from.0);
    let detail = if count > 1 {
        format!("{count} positions were {what}; which it wanted is not known")
    } else {
        what.to_owned()
    };
    // Without an owner it is for the next one to tell.
    let Some(owned) = shared.owned_of(partition) else { return };
    let subscription = core.subscription();
    let outcome = Outcome {
        epoch: owned.journal.epoch(),
        at: shared.environment.clock.unix_milliseconds(),
        took: 0,
        subscription: subscription.spec.name.to_string(),
        uid: Some(subscription.uid),
        topic: partition.topic.to_string(),
        partition: partition.number,
        position: from.0,
        source: String::new(),
        id: String::new(),
        attempt: 0,
        ending: Ending::Trimmed,
        status: None,
        detail,
    };
    owned.outcomes.push(outcome);
}

/// Takes one batch in, or joins the router where nothing is left between.
async fn read_on(
    shared: &Shared,
    core: &Arc<Core>,
    site: &Site,
    from: Position,
    open: &mut HashMap<Site, Reader>,
) -> Result<()> {
    // Without a router the topic was deleted or its slot lost, and whoever did that makes the subscription forget it. What
    // is read for a place that is gone is nobody's, and there may be nothing to read: all its other partitions would wait.
    let Some(router) = shared.router(&site.partition) else { return Ok(()) };
    match router.join(core, site.ticket, from) {
        Joining::Behind if core.key_from(site).is_some() => {}
        Joining::Joined | Joining::Behind | Joining::Gone => {
            open.remove(site);
            return Ok(());
        }
    }
    if !open.get(site).is_some_and(|reader| reader.fits(&router, from)) {
        open.insert(site.clone(), Reader::open(shared, &router, from).await?);
    }
    let Some(reader) = open.get_mut(site) else { return Ok(()) };
    if reader.rest.is_empty() && reader.held.is_none() {
        // What the router has passed is there; a broker may still be long in giving it.
        match tokio::time::timeout(READ_WAIT, reader.tail.next(READ_BYTES)).await {
            Ok(batch) => reader.rest = batch?.records.into(),
            Err(_) => return Ok(()),
        }
    }
    reader.hand_in(core, site, &router);
    core.read_to(site.as_ref(), reader.next);
    Ok(())
}

impl Reader {
    /// Hands in what was read, as far as there is room for it and the router has come.
    fn hand_in(&mut self, core: &Core, site: &Site, router: &Router) {
        // Beyond the router nobody knows yet what is a duplicate, and it will hand those in itself.
        let routed = router.peek();
        if let Some((position, appended_at, event)) = self.held.take() {
            if core.offer(site.as_ref(), (position, appended_at), &event, Feed::Own(position)) == Offered::Full {
                self.held = Some((position, appended_at, event));
                return;
            }
            self.next = position.next();
        }
        while let Some(stored) = self.rest.pop_front() {
            if stored.position >= routed {
                self.rest.push_front(stored);
                self.next = self.next.max(routed);
                return;
            }
            let Stored { position, appended_at, record } = stored;
            if let Record::Event(event) = record {
                let duplicate = self.is_duplicate(router, position, appended_at, identity(&event));
                let event = Arc::new(event);
                if !duplicate
                    && !router.moves(&event)
                    && core.wants(&event)
                    && core.offer(site.as_ref(), (position, appended_at), &event, Feed::Own(position)) == Offered::Full
                {
                    self.next = position;
                    self.held = Some((position, appended_at, event));
                    return;
                }
            }
            self.next = position.next();
        }
        self.next = self.next.max(self.tail.position().min(routed));
    }
}
