//! `GET /cluster` and `GET /apps`: what runs here, and the applications that are declared. This version is one gateway.

use std::net::SocketAddr;

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
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// When it began to serve, in milliseconds since 1970.
    pub started_at: u64,
    /// What it runs on.
    pub capability: Capability,
}

/// The gateways and what they run on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cluster)]
pub(super) struct ClusterDocument {
    /// Every gateway; in this version there is one.
    nodes: Vec<NodeDocument>,
    backbone: BackboneDocument,
}

/// A gateway.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
#[serde(rename_all = "camelCase")]
struct NodeDocument {
    /// Where it serves HTTP.
    http: String,
    /// Its version.
    version: &'static str,
    /// When it began to serve (RFC 3339).
    started_at: String,
    /// For how many seconds it has served.
    uptime_seconds: u64,
    /// Whether requests should come to it.
    ready: bool,
    /// The slots that it owns.
    slots: Vec<u32>,
}

/// What carries the events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backbone)]
#[serde(rename_all = "camelCase")]
struct BackboneDocument {
    /// The broker: `embedded`, for the log without one.
    broker: &'static str,
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
/// In this version one gateway with every slot.
#[utoipa::path(get, path = "/cluster", operation_id = "getCluster", tag = "Operation",
    responses((status = 200, description = "The cluster.", body = ClusterDocument), Refusals))]
pub(super) async fn show(State(api): State<Shared>) -> Json<ClusterDocument> {
    let node = &api.node;
    let now = api.environment.clock.unix_milliseconds();
    Json(ClusterDocument {
        nodes: vec![NodeDocument {
            http: node.http.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            started_at: time::text(node.started_at),
            uptime_seconds: now.saturating_sub(node.started_at) / 1000,
            ready: api.readiness.is_ready(),
            slots: (0..node.capability.slots).collect(),
        }],
        backbone: BackboneDocument {
            broker: node.capability.broker,
            durability: node.capability.durability.name(),
            slots: node.capability.slots,
            partitions_default: node.capability.partitions_default,
        },
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
