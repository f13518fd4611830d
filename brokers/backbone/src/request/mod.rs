//! Calls between gateways: a request to one of them, or to any that offers a service, ends in exactly one result before its
//! deadline. Built once above [`Lane`], so that it is the same on every broker; `docs/LANE.md` beside this crate says how
//! a message is written, what is promised, and what happens in every failure.
//!
//! | module | is |
//! |---|---|
//! | [`wire`] | the messages |
//! | `presence` | who is there, what they offer, whose turn it is |
//! | `calls` | requests of this node that wait for their reply |
//! | `served` | requests of others: which are carried out, and that none is twice |
//! | `transfer` | bodies larger than one message |
//! | [`local`](fn@local) | the lane inside one process |

mod calls;
mod counters;
mod error;
mod local;
mod node;
mod presence;
mod seen;
mod served;
#[cfg(test)]
mod tests;
mod transfer;
pub mod wire;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use tidegate_schemas::limits;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::environment::Environment;
use crate::error::Result;
use crate::lane::{Lane, NodeId};
use crate::log::BoxFuture;

pub use counters::Counted;
pub use error::{Refusal, RequestError};
pub use local::{Hub, local};

use node::{Node, Stopper};

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// That node.
    Node(NodeId),
    /// One of those that offer the service, this node among them.
    Any,
}

/// What a node tells others of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberInfo {
    /// Where its HTTP interface is reached; empty where it is not.
    pub http: ByteString,
    /// The version of the program.
    pub version: ByteString,
    /// When it started, in milliseconds since 1970.
    pub started_at: u64,
}

/// A node that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub node: NodeId,
    /// What it tells of itself.
    pub info: MemberInfo,
    /// What it answers, in the order of names.
    pub services: Vec<ByteString>,
}

/// A request as its handler gets it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub from: NodeId,
    /// What is asked.
    pub service: ByteString,
    /// The body; its memory is counted until the last slice of it is gone.
    pub body: Bytes,
    /// When nobody waits any more.
    pub deadline: Instant,
    /// How often it was passed on before it came here.
    pub hop: u8,
}

/// Carries out the requests for a service.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Many run at once. The future is dropped when the request's time is over or its caller waits no
    /// more, so what must be finished in any case belongs into a task of its own.
    fn handle(&self, request: Request) -> BoxFuture<'_, std::result::Result<Bytes, Refusal>>;
}

impl<F, R> Handler for F
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = std::result::Result<Bytes, Refusal>> + Send + 'static,
{
    fn handle(&self, request: Request) -> BoxFuture<'_, std::result::Result<Bytes, Refusal>> {
        Box::pin(self(request))
    }
}

/// The bounds of a node; the defaults are those of `limits`.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often it tells that it is there.
    pub beat_interval: Duration,
    /// Silence after which another is taken for gone.
    pub gone_after: Duration,
    /// What opening waits until the node hears itself.
    pub ask_timeout: Duration,
    /// What opening then waits for others, from the last new one on.
    pub ask_quiet: Duration,
    /// Requests to others that wait for their reply.
    pub calls: usize,
    /// Requests of others that are carried out at once.
    pub requests: usize,
    /// The body of a request or reply.
    pub body_bytes: usize,
    /// What leaving waits for requests that are carried out.
    pub leave_grace: Duration,
    /// The checks that controls of tests leave out.
    #[cfg(test)]
    pub(crate) checks: Checks,
}

/// What makes requests safe on a lane that is not; tests show that without it they are not.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    /// Whether repeated requests are found.
    pub(crate) repeats: bool,
    /// Whether chunks must follow each other.
    pub(crate) chunks: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            beat_interval: limits::LANE_BEAT_INTERVAL,
            gone_after: limits::LANE_GONE_AFTER,
            ask_timeout: limits::LANE_ASK_TIMEOUT,
            ask_quiet: limits::LANE_ASK_QUIET,
            calls: limits::LANE_CALLS,
            requests: limits::LANE_REQUESTS,
            body_bytes: limits::LANE_BODY_BYTES,
            leave_grace: limits::LANE_LEAVE_GRACE,
            #[cfg(test)]
            checks: Checks { repeats: true, chunks: true },
        }
    }
}

impl Options {
    /// For a node that has no others: opening waits for nobody.
    pub fn alone() -> Self {
        Self { ask_quiet: Duration::ZERO, ..Self::default() }
    }

    fn checks_repeats(&self) -> bool {
        #[cfg(test)]
        return self.checks.repeats;
        #[cfg(not(test))]
        true
    }

    fn checks_chunks(&self) -> bool {
        #[cfg(test)]
        return self.checks.chunks;
        #[cfg(not(test))]
        true
    }
}

/// This process as a node of its cluster. Clones are the same node; when the last is dropped without [`Requests::leave`],
/// the node falls silent as if its process had died.
#[derive(Clone, Debug)]
pub struct Requests {
    node: Arc<Node>,
    _stopper: Arc<Stopper>,
}

impl Requests {
    /// Joins the lane under a new id. Returns when this node is known to receive and has heard of those that are there.
    ///
    /// # Errors
    /// What the lane says; [`crate::ErrorKind::Unavailable`] where this node does not hear itself in time, and
    /// [`crate::ErrorKind::Misconfigured`] where the lane's messages are too small.
    pub async fn open(
        lane: Arc<dyn Lane>,
        info: MemberInfo,
        environment: &Environment,
        options: Options,
    ) -> Result<Self> {
        let (node, stopper) = Node::open(lane, info, environment, options).await?;
        Ok(Self { node, _stopper: Arc::new(stopper) })
    }

    /// This node's id. Its low 16 bits are zero.
    pub fn node(&self) -> NodeId {
        self.node.id
    }

    /// Offers a service, or replaces its handler, and tells the others at once. A handler that holds a clone of this is
    /// let go of by [`Requests::leave`].
    ///
    /// # Panics
    /// Where the name is longer than [`limits::LANE_SERVICE_BYTES`].
    pub fn serve(&self, service: &'static str, handler: Arc<dyn Handler>) {
        assert!(service.len() <= limits::LANE_SERVICE_BYTES, "the name of service {service} is too long");
        self.node.serve(service, handler);
    }

    /// Asks for a service and waits for the reply, `timeout` at the longest. Dropping the future cancels the request.
    ///
    /// # Errors
    /// See [`RequestError`]; [`RequestError::applied`] says whether the request may have been carried out.
    pub async fn call(
        &self,
        to: To,
        service: &str,
        body: Bytes,
        timeout: Duration,
    ) -> std::result::Result<Bytes, RequestError> {
        let deadline = Instant::now() + timeout.min(limits::LANE_TIMEOUT_MAX);
        calls::call(&self.node, to, service, body, deadline, 0).await
    }

    /// Passes a request on, within what is left of its time. Refused after [`limits::LANE_HOPS`], so that gateways which
    /// disagree about who is responsible do not pass it round for ever.
    ///
    /// # Errors
    /// As [`Requests::call`].
    pub async fn forward(&self, to: To, request: &Request) -> std::result::Result<Bytes, RequestError> {
        let hop = request.hop.saturating_add(1);
        calls::call(&self.node, to, &request.service, request.body.clone(), request.deadline, hop).await
    }

    /// Every node that is there, this one among them, in the order of their ids.
    pub fn members(&self) -> Arc<Vec<Member>> {
        self.node.presence.members()
    }

    /// The same, as it changes.
    pub fn watch_members(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.node.presence.watch()
    }

    /// Whether this node hears itself on the lane, which is so while the broker can be reached.
    pub fn hears(&self) -> bool {
        self.node.presence.hears()
    }

    /// What has been counted since the start.
    pub fn counted(&self) -> Counted {
        self.node.counters.read()
    }

    /// Leaves: refuses new requests, finishes what it carries out within its grace, says goodbye, and ends. Calls of this
    /// node that still wait end as [`RequestError::Closed`].
    pub async fn leave(&self) {
        self.node.leave().await;
    }
}
