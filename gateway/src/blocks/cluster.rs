//! The gateways that share a backbone, and who owns which part of the work.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tidegate_backbone::NodeId;
use tidegate_backbone::claim::Claims;
use tidegate_backbone::request::{Member, MemberInfo, Refusal, Request, Requests, To};
use tidegate_schemas::limits;

/// What gateways ask each other for, to tell how they are doing.
const SERVICE: &str = "gateway";

/// The cluster as this gateway sees it. Clones share everything.
#[derive(Clone, Debug)]
pub struct Cluster {
    claims: Arc<Claims>,
    /// How others are reached, where the backbone can have others.
    requests: Option<Requests>,
    here: MemberInfo,
}

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Which process it is; none where there can be no other.
    pub node: Option<NodeId>,
    /// What it tells of itself.
    pub info: MemberInfo,
    /// Whether requests should come to it; one that does not answer in time is not ready.
    pub ready: bool,
    /// The slots that it owns, as far as is known here.
    pub slots: Vec<u32>,
}

/// Who owns a part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which.
    pub number: u32,
    /// How many owners it has had, this one counted.
    pub epoch: u64,
    /// Its owner, where it has one.
    pub owner: Option<NodeId>,
    /// Whether that is this gateway.
    pub here: bool,
}

/// The answer of a gateway that is asked how it is doing.
#[derive(Serialize, Deserialize)]
struct Standing {
    ready: bool,
}

impl Cluster {
    /// What `claims` know of the slots, and `requests` of the others. `here` is what this gateway tells of itself.
    pub fn new(claims: Arc<Claims>, requests: Option<Requests>, here: MemberInfo) -> Self {
        Self { claims, requests, here }
    }

    /// What this gateway tells of itself.
    pub fn here(&self) -> &MemberInfo {
        &self.here
    }

    /// The slots of the cluster.
    pub fn claims(&self) -> &Arc<Claims> {
        &self.claims
    }

    /// How other gateways are asked, where there can be others.
    pub fn requests(&self) -> Option<&Requests> {
        self.requests.as_ref()
    }

    /// Releases every slot, so that others take them over at once, and then says goodbye to them.
    pub async fn leave(&self) {
        self.claims.leave().await;
        if let Some(requests) = &self.requests {
            requests.leave().await;
        }
    }

    /// Answers others that ask how this gateway is doing.
    pub fn answer(&self, is_ready: impl Fn() -> bool + Send + Sync + 'static) {
        let Some(requests) = &self.requests else { return };
        let standing = move |_: Request| {
            let answer = serde_json::to_vec(&Standing { ready: is_ready() });
            std::future::ready(answer.map(Bytes::from).map_err(|error| Refusal::new("internal", error.to_string())))
        };
        requests.serve(SERVICE, Arc::new(standing));
    }

    /// Every slot.
    pub fn slots(&self) -> Vec<Slot> {
        let here = self.requests.as_ref().map(Requests::node);
        let slot = |ownership: tidegate_backbone::claim::Ownership| Slot {
            number: ownership.slot,
            epoch: ownership.epoch,
            owner: if ownership.here { here } else { ownership.owner },
            here: ownership.here,
        };
        self.claims.owners().into_iter().map(slot).collect()
    }

    /// The slots that this gateway cannot read any more, because the broker lost records of them, with what is wrong.
    pub fn faults(&self) -> Vec<(u32, Arc<str>)> {
        self.claims.faults()
    }

    /// The slots that no gateway owns which is there.
    pub fn missing(&self) -> Vec<u32> {
        let owned = |slot: &Slot| slot.here || slot.owner.is_some_and(|node| self.address(node).is_some());
        self.slots().iter().filter(|slot| !owned(slot)).map(|slot| slot.number).collect()
    }

    /// The slots that this gateway owns.
    pub fn owned_here(&self) -> usize {
        self.claims.owners().iter().filter(|ownership| ownership.here).count()
    }

    /// Every gateway, each asked whether it is ready; `ready` is the answer of this one.
    pub async fn gateways(&self, ready: bool) -> Vec<Gateway> {
        let slots = self.slots();
        let of = |belongs: &dyn Fn(&Slot) -> bool| {
            slots.iter().filter(|slot| belongs(slot)).map(|slot| slot.number).collect::<Vec<u32>>()
        };
        let Some(requests) = &self.requests else {
            return vec![Gateway { node: None, info: self.here.clone(), ready, slots: of(&|slot| slot.here) }];
        };
        let mut members: Vec<Member> = requests.members().as_ref().clone();
        // While the lane is silent nobody is heard, this process least of all; it is there all the same.
        if !members.iter().any(|member| member.node == requests.node()) {
            members.push(Member { node: requests.node(), info: self.here.clone(), services: Vec::new() });
        }
        let asked = members.into_iter().map(|member| {
            let slots = of(&|slot| slot.owner == Some(member.node));
            async move {
                let ready = if member.node == requests.node() { ready } else { is_ready(requests, member.node).await };
                Gateway { node: Some(member.node), info: member.info, ready, slots }
            }
        });
        let mut gateways = join_all(asked).await;
        gateways.sort_by(|one, other| (&one.info.http, one.node).cmp(&(&other.info.http, other.node)));
        gateways
    }

    /// Where a gateway serves HTTP, where that is known.
    pub fn address(&self, node: NodeId) -> Option<ByteString> {
        let members = self.requests.as_ref()?.members();
        members.iter().find(|member| member.node == node).map(|member| member.info.http.clone())
    }

    /// How many gateways there are.
    pub fn size(&self) -> usize {
        self.requests.as_ref().map_or(1, |requests| requests.members().len().max(1))
    }

    /// Requests among gateways since the start, by what came of them.
    pub fn counted(&self) -> Vec<(&'static str, u64)> {
        let Some(counted) = self.requests.as_ref().map(Requests::counted) else { return Vec::new() };
        vec![
            ("sent", counted.requests_sent),
            ("carried-out", counted.carried_out),
            ("duplicate", counted.duplicates),
            ("expired", counted.expired),
            ("turned-away", counted.turned_away),
            ("cancelled", counted.cancelled),
            ("late", counted.late),
        ]
    }
}

async fn is_ready(requests: &Requests, node: NodeId) -> bool {
    match requests.call(To::Node(node), SERVICE, Bytes::new(), limits::CLUSTER_ASK_TIMEOUT).await {
        Ok(answer) => serde_json::from_slice(&answer).is_ok_and(|Standing { ready }| ready),
        Err(_) => false,
    }
}
