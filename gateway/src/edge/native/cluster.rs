//! `GET /cluster` and `GET /apps`: which gateways there are and what they run on, and the applications that are declared.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tidegate_backbone::Capability;
use tidegate_resources::format_duration;
use utoipa::ToSchema;

use super::openapi::refusals;
use super::{Shared, time};

/// What is known of this process from its start on.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it runs on.
    pub capability: Capability,
    /// What the broker says of its version, where it says it.
    pub broker_version: Option<String>,
}

/// The gateways and what they run on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cluster)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterDocument {
    /// Every gateway that shares the backbone, by address.
    nodes: Vec<NodeDocument>,
    /// Every slot, as this gateway knows it: a part of the work, which one gateway owns.
    slots: Vec<SlotDocument>,
    /// Slots that no gateway owns which is there: their events wait. Missing where every slot has an owner.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_slots: Vec<u32>,
    backbone: BackboneDocument,
}

/// A gateway.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
#[serde(rename_all = "camelCase")]
struct NodeDocument {
    /// Which process it is, from its start to its end; absent where there can be no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("5d1c0a7f3b2e0000"))]
    id: Option<String>,
    /// Where it serves HTTP.
    http: String,
    /// Its version.
    version: String,
    /// When it began to serve (RFC 3339).
    started_at: String,
    /// For how many seconds it has served.
    uptime_seconds: u64,
    /// Whether requests should come to it. One that does not answer within a second is not ready.
    ready: bool,
    /// The slots that it owns.
    slots: Vec<u32>,
}

/// A part of the work: the deliveries of some partitions, or the catalogue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Slot)]
#[serde(rename_all = "camelCase")]
struct SlotDocument {
    /// From 0; where there are several, slot 0 holds the catalogue.
    slot: u32,
    /// How many owners it has had; the same number is the same owner.
    epoch: u64,
    /// The gateway that owns it, by its id; absent while it has none, and where there can be no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Where that gateway serves HTTP, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    /// Why this gateway cannot read the slot any more, where the broker lost records of it: nothing is delivered of its
    /// partitions until somebody has looked after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// What carries the events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backbone)]
#[serde(rename_all = "camelCase")]
struct BackboneDocument {
    /// The broker: `embedded`, for the log without one.
    broker: &'static str,
    /// Its version, where it tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Whether this gateway reaches it.
    reachable: bool,
    /// Since when and why not, where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<String>,
    /// What an acknowledged event survives, as receipts name it.
    durability: &'static str,
    /// Slots, each owned by one gateway.
    slots: u32,
    /// Partitions of a topic for which nothing is said.
    partitions_default: u32,
}

/// An application.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = App)]
pub(super) struct AppDocument {
    /// Its app id.
    id: String,
    /// The base addresses of its instances.
    endpoints: Vec<String>,
    /// How its health is asked for, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthDocument>,
    /// The file that declares it.
    file: String,
}

/// How the health of an application is asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AppHealth)]
struct HealthDocument {
    /// The path that is asked.
    path: String,
    /// The time between two questions.
    interval: String,
    /// The time for an answer.
    timeout: String,
    /// Bad answers in a row that make it unhealthy.
    threshold: u32,
}

refusals! {
    Refusals: ;
}

/// Show the gateways and what they run on
///
/// Every gateway that shares the backbone, who owns which slot, and the broker. A gateway that has just died is shown for a
/// few seconds more.
#[utoipa::path(get, path = "/cluster", operation_id = "getCluster", tag = "Operation",
    responses((status = 200, description = "The cluster.", body = ClusterDocument), Refusals))]
pub(super) async fn show(State(api): State<Shared>) -> Json<ClusterDocument> {
    let Node { capability, broker_version } = &api.node;
    let now = api.environment.clock.unix_milliseconds();
    let gateways = api.cluster.gateways(api.readiness.is_ready()).await;
    let nodes = gateways.into_iter().map(|gateway| NodeDocument {
        id: gateway.node.map(|node| node.to_string()),
        http: gateway.info.http.to_string(),
        version: gateway.info.version.to_string(),
        started_at: time::text(gateway.info.started_at),
        uptime_seconds: now.saturating_sub(gateway.info.started_at) / 1000,
        ready: gateway.ready,
        slots: gateway.slots,
    });
    let faults = api.cluster.faults();
    let slots: Vec<SlotDocument> = api
        .cluster
        .slots()
        .into_iter()
        .map(|slot| SlotDocument {
            slot: slot.number,
            epoch: slot.epoch,
            owner: slot.owner.map(|node| node.to_string()),
            http: slot.owner.and_then(|node| api.cluster.address(node)).map(|http| http.to_string()),
            fault: faults.iter().find(|(number, _)| *number == slot.number).map(|(_, fault)| fault.to_string()),
        })
        .collect();
    let missing_slots = api.cluster.missing();
    let unreachable = api.readiness.health().failed().or_else(|| api.readiness.health().unreachable());
    Json(ClusterDocument {
        nodes: nodes.collect(),
        backbone: BackboneDocument {
            broker: capability.broker,
            version: broker_version.clone(),
            reachable: unreachable.is_none(),
            unreachable,
            durability: capability.durability.name(),
            slots: slots.len().try_into().unwrap_or(u32::MAX),
            partitions_default: capability.partitions_default,
        },
        missing_slots,
        slots,
    })
}

/// List the applications
///
/// Those that resource files declare. Nothing in this version calls them.
#[utoipa::path(get, path = "/apps", operation_id = "listApps", tag = "Operation",
    responses((status = 200, description = "The applications, by id.", body = Vec<AppDocument>), Refusals))]
pub(super) async fn apps(State(api): State<Shared>) -> Json<Vec<AppDocument>> {
    let apps = api.apps.list();
    let document = |app: &tidegate_resources::App| AppDocument {
        id: app.name.clone(),
        endpoints: app.endpoints.iter().map(ToString::to_string).collect(),
        health: app.health.as_ref().map(|health| HealthDocument {
            path: health.path.clone(),
            interval: format_duration(health.interval),
            timeout: format_duration(health.timeout),
            threshold: health.threshold,
        }),
        file: app.origin.file.to_string(),
    };
    Json(apps.iter().map(document).collect())
}
