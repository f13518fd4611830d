//! What ownership of slots needs of the other gateways: who lives, and one kind of call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Applied;
use crate::lane::NodeId;
use crate::log::BoxFuture;
use crate::request::{self, Requests, To};

/// The service under which commands are sent to a slot's owner.
pub const SERVICE: &str = "slot";

/// The other gateways as [`super::Claims`] sees them.
pub trait Peers: Send + Sync + fmt::Debug {
    /// This process.
    fn node(&self) -> NodeId;

    /// Every process that is known to live, this one among them; asked for a few times a second.
    fn members(&self) -> Vec<NodeId>;

    /// Answers the calls of others from now on.
    fn serve(&self, handler: Arc<dyn Handler>);

    /// Calls another process and waits for its answer, no longer than that.
    fn call(&self, node: NodeId, body: Bytes, timeout: Duration) -> BoxFuture<'_, Result<Bytes, CallError>>;
}

/// Who answers the calls of others.
pub trait Handler: Send + Sync + fmt::Debug {
    /// The answer to a call.
    fn answer(&self, body: Bytes) -> BoxFuture<'_, Bytes>;
}

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It had no effect: it was not sent, or was refused before anything was done.
    #[error("the call was not made: {reason}")]
    NotMade {
        /// Why.
        reason: String,
    },
    /// It may have had its effect.
    #[error("the call was not answered: {reason}")]
    NotAnswered {
        /// Why.
        reason: String,
    },
}

impl Peers for Requests {
    fn node(&self) -> NodeId {
        Self::node(self)
    }

    fn members(&self) -> Vec<NodeId> {
        Self::members(self).iter().map(|member| member.node).collect()
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        let answer = move |request: request::Request| {
            let handler = Arc::clone(&handler);
            async move { Ok(handler.answer(request.body).await) }
        };
        Self::serve(self, SERVICE, Arc::new(answer));
    }

    fn call(&self, node: NodeId, body: Bytes, timeout: Duration) -> BoxFuture<'_, Result<Bytes, CallError>> {
        Box::pin(async move {
            Self::call(self, To::Node(node), SERVICE, body, timeout).await.map_err(|error| match error.applied() {
                Applied::No => CallError::NotMade { reason: error.to_string() },
                Applied::Unknown => CallError::NotAnswered { reason: error.to_string() },
            })
        })
    }
}
