//! Topics on other brokers, beside the broker that a gateway runs on.
//!
//! [`Bridges`] is a log over several: its own backbone, and others by name. A topic that is attached to one of those
//! ([`PartitionLog::attach_on`]) is read and written there, under the name that it has here; everything else is the
//! backbone's. So nothing above knows where a topic is, and whatever passes events on from topic to topic passes them on
//! from broker to broker.
//!
//! | promise | by |
//! |---|---|
//! | another broker that is away delays nothing else | it is opened by a task of its own when a topic of it is first attached, and asked nothing while it says that it cannot be reached, nor for a while after it did not answer about a topic |
//! | a topic of another broker is never taken for one of the backbone's | its name leads there from the moment that it is to be attached, whether or not that broker can be reached |
//! | an outage ends by itself | what fails meanwhile is [`ErrorKind::Unavailable`]; a client that has ended for good is opened anew |

mod far;
mod gate;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytestring::ByteString;
use parking_lot::Mutex;

use crate::capability::{Capability, Durability};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Appended, BoxFuture, LogId, LogInfo, LogSpec, PartitionLog, Position, Record, Tail};

use far::{Client, Far};
pub use far::{FarLog, Opener};
pub use gate::Course;
use gate::Gate;

/// Where a topic is that is attached to another broker.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    broker: ByteString,
    /// Its name there.
    to: ByteString,
}

/// A backbone, and other brokers beside it.
#[derive(Debug)]
pub struct Bridges {
    home: Arc<dyn PartitionLog>,
    environment: Environment,
    brokers: Mutex<HashMap<ByteString, Arc<Far>>>,
    routes: ArcSwap<HashMap<ByteString, Route>>,
    gate: Gate,
    /// What is closed with it.
    beside: Mutex<Vec<Arc<dyn PartitionLog>>>,
}

impl Bridges {
    /// The backbone alone. Other brokers are opened in `environment`.
    pub fn new(home: Arc<dyn PartitionLog>, environment: &Environment) -> Arc<Self> {
        Arc::new(Self {
            home,
            environment: environment.clone(),
            brokers: Mutex::default(),
            routes: ArcSwap::default(),
            gate: Gate::default(),
            beside: Mutex::default(),
        })
    }

    /// The backbone alone.
    pub fn home(&self) -> &Arc<dyn PartitionLog> {
        &self.home
    }

    /// Changes where the backbone's own topics are. What waited is appended there before anything else.
    pub fn steer(&self, to: Course) {
        self.gate.set(self.home.as_ref(), to);
    }

    /// Where the backbone's own topics are now.
    pub fn course(&self) -> Course {
        self.gate.course()
    }

    /// Waits until every append to the backbone was answered that was begun before. A publisher that has given up waiting for
    /// one is not waited for.
    pub async fn answered(&self) {
        self.gate.answered().await;
    }

    /// Closes another log together with this one.
    pub fn close_with(&self, other: Arc<dyn PartitionLog>) {
        self.beside.lock().push(other);
    }

    /// The log that has the backbone's own records of that kind.
    fn base(&self, id: &LogId) -> Arc<dyn PartitionLog> {
        match (id, self.gate.course()) {
            (LogId::Topic { .. }, Course::Diverted(log)) => log,
            _ => Arc::clone(&self.home),
        }
    }

    /// Reaches a broker under that name from now on, in place of the one that had it. Topics that are attached to it are
    /// attached anew.
    pub fn put(&self, name: ByteString, opener: Arc<dyn Opener>) {
        let of_it =
            |(topic, route): (&ByteString, &Route)| (route.broker == name).then(|| (topic.clone(), route.to.clone()));
        let mut brokers = self.brokers.lock();
        let topics = self.routes.load().iter().filter_map(of_it).collect();
        let far = Far::start(name.clone(), opener, topics, &self.environment);
        if let Some(former) = brokers.insert(name, far) {
            former.end();
        }
    }

    /// Lets go of a broker. Topics that are attached to it wait until there is one of that name again.
    pub fn remove(&self, name: &str) {
        let former = self.brokers.lock().remove(name);
        if let Some(former) = former {
            former.end();
        }
    }

    fn broker(&self, route: &Route) -> Result<Arc<Far>> {
        self.brokers.lock().get(&route.broker).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "this gateway knows no broker {}, which topic {} is on; declare it in the gateway's resources",
                    route.broker, route.to
                ),
            )
        })
    }

    /// Where a log is: none for the backbone.
    fn way(&self, id: &LogId) -> Result<Option<Arc<Client>>> {
        let LogId::Topic { topic, .. } = id else { return Ok(None) };
        let routes = self.routes.load();
        let Some(route) = routes.get(topic) else { return Ok(None) };
        self.broker(route)?.client_of(topic).map(Some)
    }

    fn route(&self, topic: &str, route: &Route) {
        self.routes.rcu(|routes| {
            let mut routes = HashMap::clone(routes);
            routes.insert(topic.into(), route.clone());
            routes
        });
    }

    /// Forgets where a topic is; gives where it was.
    fn unroute(&self, topic: &str) -> Option<Route> {
        let known = self.routes.load().get(topic).cloned()?;
        self.routes.rcu(|routes| {
            let mut routes = HashMap::clone(routes);
            routes.remove(topic);
            routes
        });
        Some(known)
    }

    /// Lets go of a topic of another broker; whether it was one.
    fn let_go(&self, topic: &str) -> Option<(Option<Arc<Far>>, ByteString)> {
        let route = self.unroute(topic)?;
        Some((self.broker(&route).ok(), topic.into()))
    }
}

impl PartitionLog for Bridges {
    fn capability(&self) -> &Capability {
        self.home.capability()
    }

    fn durability_of(&self, topic: &str) -> Durability {
        let routes = self.routes.load();
        let Some(route) = routes.get(topic) else {
            return match self.gate.course() {
                Course::Diverted(log) => log.durability_of(topic),
                _ => self.home.durability_of(topic),
            };
        };
        let client = self.broker(route).and_then(|far| far.client_of(topic));
        // Nothing is acknowledged while there is none, so that nobody is told the least.
        client.map_or(Durability::Memory, |client| client.log().durability_of(topic))
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        if let LogSpec::Topic { topic, .. } = &spec {
            // One that could never be attached.
            self.unroute(topic);
        }
        self.home.create(spec)
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        if let LogSpec::Topic { topic, .. } = &spec
            && let Some((far, topic)) = self.let_go(topic)
        {
            return Box::pin(async move {
                match far {
                    Some(far) => far.detach(&topic).await,
                    None => Ok(()),
                }
            });
        }
        self.home.delete(spec)
    }

    fn attach<'a>(&'a self, topic: &'a str, to: &'a str) -> BoxFuture<'a, Result<u32>> {
        self.unroute(topic);
        self.home.attach(topic, to)
    }

    fn attach_on<'a>(&'a self, broker: &'a str, topic: &'a str, to: &'a str) -> BoxFuture<'a, Result<u32>> {
        Box::pin(async move {
            let route = Route { broker: broker.into(), to: to.into() };
            let known = self.routes.load().get(topic).cloned();
            // One that could not be attached there leads nowhere.
            let holds = |other: &Route| self.broker(other).is_ok_and(|far| far.holds(topic));
            if let Some(other) = known.filter(|other| *other != route && holds(other)) {
                let context = format!(
                    "topic {topic} is attached to {} on the broker {} already, and cannot be attached to {to} on {broker}",
                    other.to, other.broker
                );
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            self.route(topic, &route);
            self.broker(&route)?.attach(topic.into(), route.to).await
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>> {
        self.home.list()
    }

    fn generations(&self, slot: u32) -> BoxFuture<'_, Result<Vec<LogId>>> {
        self.home.generations(slot)
    }

    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>> {
        Box::pin(async move {
            match self.way(id)? {
                None => self.base(id).info(id).await,
                Some(client) => client.heard(client.log().info(id).await),
            }
        })
    }

    fn count<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            match self.way(id)? {
                None => self.base(id).count(id, from).await,
                Some(client) => client.heard(client.log().count(id, from).await),
            }
        })
    }

    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>> {
        match self.way(id) {
            Ok(None) => match id {
                LogId::Topic { .. } => self.gate.append(self.home.as_ref(), id, record),
                _ => self.home.append(id, record),
            },
            Ok(Some(client)) => {
                let appended = client.log().append(id, record);
                Box::pin(async move { client.heard(appended.await) })
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        Box::pin(async move {
            match self.way(id)? {
                None => self.base(id).tail(id, from).await,
                Some(client) => client.follow(client.log().tail(id, from).await),
            }
        })
    }

    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>> {
        match self.way(id) {
            Ok(None) => {
                let (log, id) = (self.base(id), id.clone());
                Box::pin(async move { log.lookup(&id, unix_milliseconds).await })
            }
            Ok(Some(client)) => {
                let id = id.clone();
                Box::pin(async move { client.heard(client.log().lookup(&id, unix_milliseconds).await) })
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match self.way(id)? {
                None => self.home.trim(id, before).await,
                Some(client) => client.heard(client.log().trim(id, before).await),
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let brokers: Vec<Arc<Far>> = self.brokers.lock().drain().map(|(_, far)| far).collect();
            for far in &brokers {
                far.end();
            }
            futures_util::future::join_all(brokers.iter().map(|far| far.ended())).await;
            let beside = std::mem::take(&mut *self.beside.lock());
            futures_util::future::join_all(beside.iter().map(|log| log.close())).await;
            self.home.close().await;
        })
    }
}
