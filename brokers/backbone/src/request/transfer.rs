//! Bodies larger than one message: put together at one end, sent as credits allow at the other.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidegate_schemas::limits;
use tokio::sync::watch;

use super::node::Node;
use super::wire::{Body, Kind};
use crate::budget::Permit;
use crate::error::{ErrorKind, Result};
use crate::lane::NodeId;

/// A body of which a part has come.
#[derive(Debug)]
pub(super) struct Assembly {
    total: usize,
    buffer: BytesMut,
    permit: Permit,
    /// Up to where the sender may send.
    credit: usize,
    silence: Duration,
    in_order: bool,
}

/// What a chunk made of it.
#[derive(Debug)]
pub(super) enum Pushed {
    /// More is to come.
    More,
    /// More is to come, and the sender may send up to there.
    Credit(u32),
    /// It had come before.
    Repeated,
    /// The body is whole.
    Whole,
    /// Something is missing before it.
    Broken,
}

/// How a body under way stands.
#[derive(Debug)]
pub(super) enum Ticked {
    /// It comes.
    Fine,
    /// Nothing has come for a while: the credit may have been lost, and is given again.
    Remind(u32),
    /// Nothing has come for too long.
    Over,
}

impl Assembly {
    /// `permit` stands for the whole body, so that no chunk has to be refused.
    pub(super) fn new(total: usize, start: &[u8], permit: Permit, in_order: bool) -> Self {
        let mut buffer = BytesMut::with_capacity(total);
        buffer.extend_from_slice(start);
        Self { total, buffer, permit, credit: limits::LANE_WINDOW_BYTES, silence: Duration::ZERO, in_order }
    }

    pub(super) fn push(&mut self, offset: usize, chunk: &[u8]) -> Pushed {
        let have = self.buffer.len();
        if self.in_order {
            if offset < have {
                return Pushed::Repeated;
            }
            if offset > have || chunk.len() > self.total - have {
                return Pushed::Broken;
            }
        }
        self.silence = Duration::ZERO;
        self.buffer.extend_from_slice(&chunk[..chunk.len().min(self.total - have)]);
        if self.buffer.len() == self.total {
            return Pushed::Whole;
        }
        // Half a window at once, so that a credit stands for several chunks.
        let credit = self.buffer.len() + limits::LANE_WINDOW_BYTES;
        if credit - self.credit >= limits::LANE_WINDOW_BYTES / 2 {
            self.credit = credit;
            return Pushed::Credit(small(credit));
        }
        Pushed::More
    }

    /// Time has gone on.
    pub(super) fn tick(&mut self, gap: Duration) -> Ticked {
        let before = self.silence;
        self.silence += gap;
        if self.silence >= limits::LANE_TRANSFER_TIMEOUT {
            return Ticked::Over;
        }
        if before.is_zero() {
            return Ticked::Fine;
        }
        self.credit = self.buffer.len() + limits::LANE_WINDOW_BYTES;
        Ticked::Remind(small(self.credit))
    }

    /// The whole body, counted until it is let go of.
    pub(super) fn finish(self) -> Bytes {
        self.permit.hold(self.buffer.freeze())
    }
}

/// Bodies are far smaller than what a u32 counts: their bound is checked before.
pub(super) fn small(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// How far a body may be sent.
#[derive(Debug)]
pub(super) struct Credit(watch::Sender<usize>);

impl Credit {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(limits::LANE_WINDOW_BYTES))
    }

    /// Credits may come twice or late, and count for what they say at most.
    pub(super) fn give(&self, offset: u32) {
        self.0.send_if_modified(|credit| {
            let more = offset as usize > *credit;
            *credit = (*credit).max(offset as usize);
            more
        });
    }

    pub(super) fn wait(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }
}

/// What of a body goes into its first message.
pub(super) fn start(body: &Bytes, chunk_bytes: usize) -> Bytes {
    body.slice(..body.len().min(chunk_bytes))
}

/// Sends what follows the first message of a body. Ends early where the receiver of credits is gone.
pub(super) async fn send_rest(
    node: &Node,
    to: NodeId,
    id: u64,
    of: Body,
    body: &Bytes,
    mut credit: watch::Receiver<usize>,
) -> Result<()> {
    let mut offset = body.len().min(node.chunk_bytes);
    while offset < body.len() {
        let Ok(allowed) = credit.wait_for(|credit| *credit > offset).await.map(|credit| *credit) else { return Ok(()) };
        let end = body.len().min(allowed).min(offset + node.chunk_bytes);
        let payload = body.slice(offset..end);
        send_patiently(node, to, Kind::Chunk { id, of, offset: small(offset), payload }).await?;
        offset = end;
    }
    Ok(())
}

/// Sends a message, and again while the lane is full. The caller bounds the time.
pub(super) async fn send_patiently(node: &Node, to: NodeId, kind: Kind) -> Result<()> {
    let message = node.encode(to, kind);
    loop {
        match node.send(to, message.clone()).await {
            Err(error) => match error.kind() {
                ErrorKind::Backpressure { retry_after } => tokio::time::sleep(*retry_after).await,
                _ => return Err(error),
            },
            Ok(()) => return Ok(()),
        }
    }
}
