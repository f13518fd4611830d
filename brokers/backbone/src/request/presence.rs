//! Who is there, what they offer, and whose turn it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_schemas::limits;
use tokio::sync::watch;

use super::error::RequestError;
use super::wire::{Beat, RequestHead};
use super::{Member, MemberInfo, To};
use crate::environment::milliseconds;
use crate::lane::NodeId;

/// Beats of which the smallest difference of clocks is kept.
const DIFFERENCES: usize = 4;

#[derive(Debug)]
pub(super) struct Presence {
    id: NodeId,
    beat_interval: Duration,
    gone_after: Duration,
    table: Mutex<Table>,
    shown: watch::Sender<Arc<Vec<Member>>>,
}

#[derive(Debug)]
struct Table {
    me: Member,
    serial: u64,
    /// How long this node has not heard itself.
    unheard: Duration,
    others: BTreeMap<NodeId, Other>,
    /// The newest that said goodbye: what they sent before may arrive behind it.
    left: VecDeque<NodeId>,
    /// Calls of this node that are open, for each node asked.
    open: BTreeMap<NodeId, usize>,
    turn: usize,
}

#[derive(Debug)]
struct Other {
    member: Member,
    serial: u64,
    silence: Duration,
    /// Own clock less the sender's, at the newest beats.
    differences: VecDeque<i128>,
}

impl Presence {
    pub(super) fn new(id: NodeId, info: MemberInfo, beat_interval: Duration, gone_after: Duration) -> Self {
        let me = Member { node: id, info, services: Vec::new() };
        let shown = watch::Sender::new(Arc::new(vec![me.clone()]));
        let table = Table {
            me,
            serial: 0,
            unheard: gone_after,
            others: BTreeMap::new(),
            left: VecDeque::new(),
            open: BTreeMap::new(),
            turn: 0,
        };
        Self { id, beat_interval, gone_after, table: Mutex::new(table), shown }
    }

    pub(super) fn members(&self) -> Arc<Vec<Member>> {
        self.shown.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.shown.subscribe()
    }

    pub(super) fn hears(&self) -> bool {
        self.table.lock().unheard < self.gone_after
    }

    /// What this node offers from now on.
    pub(super) fn offer(&self, services: Vec<ByteString>) {
        let mut table = self.table.lock();
        table.me.services = services;
        self.show(&table);
    }

    /// The next beat of this node.
    pub(super) fn beat(&self, since_boot: Duration) -> Beat {
        let mut table = self.table.lock();
        table.serial += 1;
        let MemberInfo { http, version, started_at } = table.me.info.clone();
        Beat {
            serial: table.serial,
            time_ms: milliseconds(since_boot),
            started_at_ms: started_at,
            http,
            version,
            services: table.me.services.clone(),
        }
    }

    /// Takes a beat in.
    pub(super) fn heard(&self, from: NodeId, beat: Beat, since_boot: Duration) {
        let mut table = self.table.lock();
        if from == self.id {
            table.unheard = Duration::ZERO;
            return;
        }
        if table.left.contains(&from) {
            return;
        }
        let difference = i128::from(milliseconds(since_boot)) - i128::from(beat.time_ms);
        let info = MemberInfo { http: beat.http, version: beat.version, started_at: beat.started_at_ms };
        let member = Member { node: from, info, services: beat.services };
        let full = table.others.len() + 1 >= limits::LANE_MEMBERS;
        match table.others.get_mut(&from) {
            Some(other) if beat.serial <= other.serial => return,
            Some(other) => {
                other.serial = beat.serial;
                other.silence = Duration::ZERO;
                if other.differences.len() == DIFFERENCES {
                    other.differences.pop_front();
                }
                other.differences.push_back(difference);
                if other.member == member {
                    return;
                }
                other.member = member;
            }
            None if full => {
                tracing::warn!(node = %from, "more than {} gateways are there; this one is left out", limits::LANE_MEMBERS);
                return;
            }
            None => {
                tracing::info!(node = %from, http = %member.info.http, version = %member.info.version, "a gateway is there");
                let differences = VecDeque::from([difference]);
                table.others.insert(from, Other { member, serial: beat.serial, silence: Duration::ZERO, differences });
            }
        }
        self.show(&table);
    }

    /// A node said goodbye. Gives whether it was there.
    pub(super) fn left(&self, from: NodeId) -> bool {
        let mut table = self.table.lock();
        if from == self.id || table.left.contains(&from) {
            return false;
        }
        if table.left.len() == limits::LANE_MEMBERS {
            table.left.pop_front();
        }
        table.left.push_back(from);
        let there = table.others.remove(&from).is_some();
        if there {
            tracing::info!(node = %from, "a gateway has left");
            self.show(&table);
        }
        there
    }

    /// The lane says that nobody receives as that node. It may be back with its next beat.
    pub(super) fn missing(&self, node: NodeId) {
        let mut table = self.table.lock();
        if table.others.remove(&node).is_some() {
            tracing::info!(node = %node, "a gateway does not receive any more");
            self.show(&table);
        }
    }

    /// Time has gone on. Gives who is gone now.
    pub(super) fn tick(&self, gap: Duration) -> Vec<NodeId> {
        // Whoever stood still for a while has heard nobody, and that says nothing about them.
        let gap = gap.min(2 * limits::LANE_TICK);
        let mut table = self.table.lock();
        table.unheard = table.unheard.saturating_add(gap);
        if table.unheard > self.beat_interval.mul_f32(1.5) {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for (node, other) in &mut table.others {
            other.silence += gap;
            if other.silence >= self.gone_after {
                gone.push(*node);
            }
        }
        for node in &gone {
            tracing::warn!(%node, "a gateway has been silent for {} ms and is taken for gone", self.gone_after.as_millis());
            table.others.remove(node);
        }
        if !gone.is_empty() {
            self.show(&table);
        }
        gone
    }

    /// Who is asked: the node itself, or of those that offer the service the one with the fewest open calls.
    pub(super) fn pick(&self, to: To, service: &str, tried: &[NodeId]) -> Result<NodeId, RequestError> {
        let mut table = self.table.lock();
        if table.unheard >= self.gone_after {
            let text = "this node does not hear itself on the lane, so no reply could reach it; is the broker there?";
            return Err(RequestError::Unavailable(text.to_owned()));
        }
        let offers = |member: &Member| member.services.iter().any(|offered| *offered == service);
        match to {
            To::Node(node) => match table.member(node) {
                Some(member) if offers(member) => Ok(node),
                Some(_) => Err(RequestError::Nobody(format!("node {node} does not offer {service}"))),
                None => Err(RequestError::Nobody(format!("node {node} is not there"))),
            },
            To::Any => {
                let others = table.others.values().map(|other| &other.member);
                let offering = std::iter::once(&table.me).chain(others).filter(|member| offers(member));
                let candidates: Vec<NodeId> =
                    offering.map(|member| member.node).filter(|node| !tried.contains(node)).collect();
                table.turn = table.turn.wrapping_add(1);
                let turn = table.turn;
                let open = |at: usize| table.open.get(&candidates[at]).copied().unwrap_or_default();
                let places = (0..candidates.len()).map(|step| (step + turn) % candidates.len());
                let place = places.min_by_key(|at| open(*at));
                let text = || RequestError::Nobody(format!("no node offers {service}"));
                place.map(|at| candidates[at]).ok_or_else(text)
            }
        }
    }

    /// A call to that node begins.
    pub(super) fn opened(&self, node: NodeId) {
        *self.table.lock().open.entry(node).or_default() += 1;
    }

    /// A call to that node has ended.
    pub(super) fn closed(&self, node: NodeId) {
        let mut table = self.table.lock();
        if let Some(open) = table.open.get_mut(&node) {
            *open -= 1;
            if *open == 0 {
                table.open.remove(&node);
            }
        }
    }

    /// How long a request was under way beyond the usual.
    pub(super) fn delay(&self, from: NodeId, head: &RequestHead, since_boot: Duration) -> Duration {
        let table = self.table.lock();
        let difference = if from == self.id {
            Some(0)
        } else {
            table.others.get(&from).and_then(|other| other.differences.iter().copied().min())
        };
        let Some(difference) = difference else { return Duration::ZERO };
        let sender_now = i128::from(milliseconds(since_boot)) - difference;
        let sent = i128::from(head.deadline_ms) - i128::from(head.left_ms);
        Duration::from_millis(u64::try_from(sender_now - sent).unwrap_or_default())
    }

    fn show(&self, table: &Table) {
        let mut members: Vec<Member> = table.others.values().map(|other| other.member.clone()).collect();
        members.push(table.me.clone());
        members.sort_by_key(|member| member.node);
        self.shown.send_replace(Arc::new(members));
    }
}

impl Table {
    fn member(&self, node: NodeId) -> Option<&Member> {
        if node == self.me.node { Some(&self.me) } else { self.others.get(&node).map(|other| &other.member) }
    }
}
