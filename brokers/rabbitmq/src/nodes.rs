//! Where a stream of a cluster ends, by the word of more than half of its nodes.
//!
//! A reader is given the replica of the node that it is connected to. That one may lack what others have, and while it follows its
//! leader it knows of a record as committed only a moment after the publisher was told so. One node says nothing, then, of what
//! others have confirmed, and neither does the greatest of what several have committed.
//!
//! But RabbitMQ confirms a record only once more than half of the replicas have *written* it, so that each such half has one
//! that holds it; and a reader that begins at the last chunk begins at the last one that is written, and is given it only once it
//! is committed. So each node is asked for its last chunk until it gives it, and of more than half of such answers the greatest
//! is not before any record that was confirmed when the question was asked, whoever leads the stream and whether he answers. A next
//! leader, too, has all that was confirmed before, and does not know at first that it is committed.
//!
//! A node that gives nothing at all holds nothing, or knows of nothing that is committed: these cannot be told apart. So it counts
//! only where all that answer give nothing; where some give something, all are asked again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::message::Delivery;
use rustls::ClientConfig;
use tidegate_backbone::{Environment, Error, ErrorKind, Result};
use tidegate_schemas::limits;
use tokio::time::Instant;

use crate::ask::{Asker, offset};
use crate::connection::Link;
use crate::error::{closed, unavailable};
use crate::options::Options;

/// How long before nodes are asked again that do not agree yet.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// What another answer is waited for where some disagree: they will agree in a moment, and it may be long in coming.
const STRAGGLER: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    /// Answers among which there is one of a replica that holds what was confirmed.
    majority: usize,
    environment: Environment,
}

#[derive(Debug)]
struct Node {
    address: String,
    link: Arc<Link>,
    asker: Arc<Asker>,
}

impl Nodes {
    /// Begins to connect to each; none where a single one is named.
    pub(crate) fn begin(
        options: &Arc<Options>,
        tls: Option<&Arc<ClientConfig>>,
        environment: &Environment,
    ) -> Option<Self> {
        let count = options.hosts.len();
        if count < 2 {
            return None;
        }
        let node = |host: &(String, u16)| {
            let only = Arc::new(Options { hosts: vec![host.clone()], ..Options::clone(options) });
            let link = Link::begin("questions to each node", &only, tls.cloned(), environment);
            Node { address: only.address(), asker: Arc::new(Asker::new(Arc::clone(&link), None)), link }
        };
        let replicas = options.replicas.and_then(|replicas| usize::try_from(replicas).ok()).unwrap_or(count);
        let (nodes, environment) = (options.hosts.iter().map(node).collect(), environment.clone());
        Some(Self { nodes, majority: replicas.min(count) / 2 + 1, environment })
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.nodes.iter().map(|node| &node.link)
    }

    /// The last record of the stream; none where it is empty.
    pub(crate) async fn last(&self, stream: &str) -> Result<Option<Delivery>> {
        let began = Instant::now();
        loop {
            let connected = self.connected().await;
            if connected.len() < self.majority {
                if self.links().any(|link| link.is_closed()) {
                    return Err(closed());
                }
                return Err(self.silence(stream, &connected, &[]));
            }
            let mut asked: FuturesUnordered<_> = connected.into_iter().map(|node| self.ask(node, stream)).collect();
            let (mut there, mut empty, mut failed, mut answered) = (Vec::new(), 0, Vec::new(), Vec::new());
            loop {
                let patience = if there.is_empty() || empty == 0 { limits::RABBITMQ_CALL_TIMEOUT } else { STRAGGLER };
                let next = tokio::time::timeout(patience, asked.next()).await;
                let Ok(Some((node, answer))) = next else { break };
                match answer {
                    Err(error) => {
                        failed.push((node, error));
                        continue;
                    }
                    Ok(Some(last)) => there.push(last),
                    Ok(None) => empty += 1,
                }
                answered.push(node);
                if there.len() >= self.majority {
                    return Ok(there.into_iter().max_by_key(offset));
                }
            }
            if there.is_empty() && empty >= self.majority {
                return Ok(None);
            }
            if let Some(at) = failed.iter().position(|(_, error)| self.is_told_by_most(error, &failed)) {
                return Err(failed.swap_remove(at).1);
            }
            // One that has just started may answer a moment later.
            if began.elapsed() >= limits::RABBITMQ_CALL_TIMEOUT {
                return Err(if answered.len() < self.majority {
                    self.silence(stream, &answered, &failed)
                } else {
                    self.disagreement(stream, there.len(), empty)
                });
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Those that are connected, for which is waited where they are too few.
    async fn connected(&self) -> Vec<&Node> {
        let mut waiting: FuturesUnordered<_> = self.links().map(|link| link.wait()).collect();
        let enough = async {
            let mut count = 0;
            while count < self.majority
                && let Some(open) = waiting.next().await
            {
                count += usize::from(open.is_ok());
            }
        };
        let _ = tokio::time::timeout(limits::RABBITMQ_CONNECT_TIMEOUT, enough).await;
        self.nodes.iter().filter(|node| node.link.current().is_some()).collect()
    }

    /// Goes on where its answer is not waited for, so that its channel is there for the next question.
    async fn ask<'a>(&self, node: &'a Node, stream: &str) -> (&'a Node, Result<Option<Delivery>>) {
        let (asker, stream) = (Arc::clone(&node.asker), stream.to_owned());
        let asking = self.environment.spawn(async move { asker.last(&stream).await });
        (node, asking.await.unwrap_or_else(|_| Err(unavailable("the gateway ends"))))
    }

    /// Whether so many refuse it in this way that no other answer is to come, such as where there is no such stream.
    fn is_told_by_most(&self, error: &Error, failed: &[(&Node, Error)]) -> bool {
        let same = failed.iter().filter(|(_, other)| other.kind() == error.kind()).count();
        *error.kind() != ErrorKind::Unavailable && same >= self.majority
    }

    /// The error where too few answer.
    fn silence(&self, stream: &str, answered: &[&Node], failed: &[(&Node, Error)]) -> Error {
        let (count, majority) = (self.nodes.len(), self.majority);
        let is_silent = |node: &&Node| !answered.iter().any(|of| std::ptr::eq(*of, *node));
        let why = |node: &Node| {
            let failed = failed.iter().find(|(of, _)| std::ptr::eq(*of, node)).map(|(_, error)| error.to_string());
            let why = failed.or_else(|| node.link.unreachable()).unwrap_or_else(|| "no answer in time".to_owned());
            format!("{}: {why}", node.address)
        };
        let silent: Vec<String> = self.nodes.iter().filter(is_silent).map(why).collect();
        unavailable(format!(
            "where the stream {stream} ends is not known: of {count} nodes of RabbitMQ {} answered, and {majority} must; see \
             that all run, and that the URL names every node of the cluster; these did not answer: {}",
            answered.len(),
            silent.join("; ")
        ))
    }

    /// The error where enough answer, and not the same.
    fn disagreement(&self, stream: &str, there: usize, empty: usize) -> Error {
        let majority = self.majority;
        unavailable(format!(
            "where the stream {stream} ends is not known yet: {there} nodes of RabbitMQ have records of it and {empty} have none, \
             and {majority} must have some; its replicas are not in step, see that all nodes are well"
        ))
    }
}
