//! How bindings stand in the whole cluster: what only the gateway knows that reads a queue is asked of it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tidegate_backbone::NodeId;
use tidegate_backbone::request::{Refusal, Request, To};
use tidegate_resources::{Binding, Direction};
use tidegate_schemas::limits;

use super::standing::{Counts, State};
use super::{Bindings, Inner};
use crate::blocks::cluster::Cluster;

/// What gateways ask each other.
const SERVICE: &str = "bindings";

/// A binding and how it stands.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What it is.
    pub binding: Arc<Binding>,
    /// How it stands.
    pub state: State,
    /// What an input has done since it began at its gateway, where that is known.
    pub counts: Option<Counts>,
    /// The gateway that reads the queue of an input, by where it serves HTTP.
    pub gateway: Option<ByteString>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Question {
    /// How the inputs stand that the other one reads.
    Standings,
    /// Lets one go on.
    Resume { name: String },
}

type Standings = HashMap<String, (State, Counts)>;

/// Why a binding could not be resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// There is none of that name.
    #[error("there is no binding {0}")]
    NotFound(String),
    /// Whoever reads its queue cannot be asked.
    #[error("the gateway that reads the queue of the binding {0} cannot be asked: {1}")]
    Away(String, String),
}

impl Bindings {
    /// Asks other gateways of that cluster from now on, and answers them.
    pub fn join(&self, cluster: &Cluster) {
        if self.0.cluster.set(cluster.clone()).is_err() {
            return;
        }
        let Some(requests) = cluster.requests() else { return };
        let bindings = Arc::downgrade(&self.0);
        let answer = move |request: Request| {
            let inner = bindings.upgrade();
            async move {
                let inner = inner.ok_or_else(|| Refusal::new("closed", "this gateway reads no queues any more"))?;
                answer(&Self(inner), &request.body)
            }
        };
        requests.serve(SERVICE, Arc::new(answer));
    }

    /// Every binding with how it stands, by name.
    pub async fn list(&self) -> Vec<Shown> {
        let declared: Vec<Arc<Binding>> = self.0.known.lock().declared.values().cloned().collect();
        let here = self.standings();
        let mut owners: HashMap<NodeId, Standings> = HashMap::new();
        let elsewhere = declared.iter().filter(|it| is_input(it) && !here.contains_key(&it.name));
        let mut nodes: Vec<NodeId> = elsewhere.filter_map(|binding| self.owner(&binding.name)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let asked =
            join_all(nodes.iter().map(|node| async move { (*node, self.ask(*node, &Question::Standings).await) }));
        for (node, answer) in asked.await {
            let standings = answer.ok().and_then(|answer| serde_json::from_slice(&answer).ok());
            owners.insert(node, standings.unwrap_or_default());
        }
        declared.into_iter().map(|binding| self.shown(binding, &here, &owners)).collect()
    }

    fn shown(&self, binding: Arc<Binding>, here: &Standings, owners: &HashMap<NodeId, Standings>) -> Shown {
        let unknown = |why: &str| State::Unknown { reason: why.to_owned() };
        if !is_input(&binding) {
            let unreachable = match self.0.brokers.get(&binding.broker) {
                Ok(queues) => queues.unreachable(),
                Err(error) => Some(error.to_string()),
            };
            let hindrance = unreachable.or_else(|| self.0.pubsub.outputs().hindrance(&binding.name));
            let state = hindrance.map_or(State::Running, |reason| State::Waiting { since: None, reason });
            return Shown { binding, state, counts: None, gateway: None };
        }
        let cluster = self.0.cluster.get();
        if let Some((state, counts)) = here.get(&binding.name) {
            let gateway = cluster.map(|cluster| cluster.here().http.clone());
            return Shown { binding, state: state.clone(), counts: Some(*counts), gateway };
        }
        let Some(node) = self.owner(&binding.name) else {
            return Shown { binding, state: unknown("its slot has no owner for now"), counts: None, gateway: None };
        };
        let gateway = cluster.and_then(|cluster| cluster.address(node));
        match owners.get(&node).and_then(|standings| standings.get(&binding.name)) {
            Some((state, counts)) => Shown { binding, state: state.clone(), counts: Some(*counts), gateway },
            None => {
                let state =
                    unknown("the gateway that owns its slot does not answer, or its files do not declare the binding");
                Shown { binding, state, counts: None, gateway }
            }
        }
    }

    /// The binding of that name with how it stands.
    pub async fn find(&self, name: &str) -> Option<Shown> {
        self.list().await.into_iter().find(|shown| shown.binding.name == name)
    }

    /// Lets an input go on that is paused; one that is not goes on anyway.
    ///
    /// # Errors
    /// There is none, or whoever reads its queue cannot be asked.
    pub async fn resume(&self, name: &str) -> Result<(), ResumeError> {
        let declared = self.0.known.lock().declared.get(name).cloned();
        let binding = declared.ok_or_else(|| ResumeError::NotFound(name.to_owned()))?;
        if !is_input(&binding) || self.resume_here(name) {
            return Ok(());
        }
        let away = |why: String| ResumeError::Away(name.to_owned(), why);
        let owner = self.owner(name).ok_or_else(|| away("its slot has no owner for now".to_owned()))?;
        self.ask(owner, &Question::Resume { name: name.to_owned() }).await.map(drop).map_err(away)
    }

    /// The inputs that are read here.
    pub fn standings(&self) -> Standings {
        let known = self.0.known.lock();
        let of = |(name, running): (&String, &super::Running)| {
            (name.clone(), (running.standing.state(), running.standing.counts()))
        };
        known.running.iter().map(of).collect()
    }

    /// Whether it is read here.
    fn resume_here(&self, name: &str) -> bool {
        let known = self.0.known.lock();
        let Some(running) = known.running.get(name) else { return false };
        running.standing.resume();
        true
    }

    /// The other gateway that owns the slot of a binding.
    fn owner(&self, name: &str) -> Option<NodeId> {
        let cluster = self.0.cluster.get()?;
        let slot = cluster.slots().into_iter().find(|slot| slot.number == self.slot_of(name))?;
        slot.owner.filter(|_| !slot.here)
    }

    async fn ask(&self, node: NodeId, question: &Question) -> Result<Bytes, String> {
        let requests = self.0.cluster.get().and_then(Cluster::requests).ok_or("there is no other gateway")?;
        let body = serde_json::to_vec(question).map_err(|error| error.to_string())?;
        let asked = requests.call(To::Node(node), SERVICE, body.into(), limits::CLUSTER_ASK_TIMEOUT);
        asked.await.map_err(|error| error.to_string())
    }
}

fn is_input(binding: &Binding) -> bool {
    matches!(binding.direction, Direction::Input(_))
}

fn answer(bindings: &Bindings, question: &[u8]) -> Result<Bytes, Refusal> {
    let malformed =
        |error: serde_json::Error| Refusal::new("malformed", format!("the question cannot be read: {error}"));
    match serde_json::from_slice(question).map_err(malformed)? {
        Question::Standings => {
            let told = serde_json::to_vec(&bindings.standings());
            told.map(Bytes::from).map_err(|error| Refusal::new("internal", error.to_string()))
        }
        Question::Resume { name } if bindings.resume_here(&name) => Ok(Bytes::new()),
        Question::Resume { name } => Err(Refusal::new("elsewhere", format!("the queue of {name} is not read here"))),
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bindings").field("known", &self.known).finish_non_exhaustive()
    }
}
