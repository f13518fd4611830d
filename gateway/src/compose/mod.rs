//! The one place that knows every part: sockets first, which answer from then on how the start is going, then the backbone, its
//! slots, the blocks, and the protocols last.
//! Each backbone has a file here, and is named nowhere else.

mod backbone;
mod brokers;
mod embedded;
#[cfg(feature = "kafka")]
mod kafka;
mod membership;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod tenancy;
mod watch;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_backbone::bridge::Bridges;
use tidegate_backbone::budget::Budget;
use tidegate_backbone::catalogue::Catalogue;
use tidegate_backbone::consume::{Consume, Owners};
use tidegate_backbone::migrate;
use tidegate_backbone::queues::QueueBrokers;
use tidegate_backbone::request::MemberInfo;
use tidegate_backbone::{Environment, Error, PartitionLog};
use tidegate_schemas::limits::Limits;
use tracing::{debug, info, warn};

use crate::blocks::apps::Apps;
use crate::blocks::bindings::Bindings;
use crate::blocks::cluster::Cluster;
use crate::blocks::migration::Migration;
use crate::blocks::pubsub::{self, PubSub};
use crate::edge::guard::{Guard, complete};
use crate::edge::listener::{BindError, Listener, Options as ListenerOptions, Server};
use crate::edge::native::{Api, Node, Readiness, router};
use crate::edge::startup::Startup;
use crate::lifecycle::Parts;
use crate::memory;
use crate::reload;
use crate::sink::{AddressPolicy, Outputs, Sinks};
use crate::telemetry::traces::{self, ExportError, Exports, Traces};
use crate::telemetry::{Metrics, logging};
use tidegate_resources::config;
use tidegate_resources::{self as resources, Diagnostic, Resources};

pub(crate) use backbone::log_filter;
pub use backbone::{Opened, built_in, open as open_backbone};
use brokers::Brokers;
use tenancy::Tenancy;
use watch::Watch;

/// The slot that holds the catalogue.
const CATALOGUE: u32 = 0;

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// What carries the events, and how it is reached.
    pub backbone: config::Backbone,
    /// The folder of the resources.
    pub resources: Option<PathBuf>,
    /// Whether the first publish to a name creates its topic.
    pub create_topics_on_first_use: bool,
    /// Which addresses subscriptions may call that requests created.
    pub request_sinks: AddressPolicy,
    /// Whether a person watches: dropped duplicates are told in the log.
    pub development: bool,
    /// The limits that a configuration may change.
    pub limits: config::Limits,
    /// Which log lines are written, where logging was begun for this gateway.
    pub log_filter: Option<logging::Filter>,
    /// Where traces go; nowhere where this is not set.
    pub traces: Option<traces::Options>,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Resource files have faults; all of them.
    #[error("{}", lines(.0))]
    Resources(Vec<Diagnostic>),
    /// An address cannot be served.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The backbone cannot be opened.
    #[error("{0}")]
    Backbone(#[from] Error),
    /// Another backbone is being migrated into this one.
    #[error(
        "a backbone ({from}) is being migrated into this one, and is still the one that counts; start this gateway when \
         `tidegate migrate status` there says that it was moved"
    )]
    Incoming {
        /// What it comes from.
        from: String,
    },
    /// Traces cannot be exported as they should be.
    #[error(transparent)]
    Traces(#[from] ExportError),
    /// The files ask for what cannot be had.
    #[error("{}", lines(.0))]
    Apply(Vec<pubsub::ApplyError>),
}

fn lines<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Running {
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// What has to be stopped, and in which order.
    pub parts: Parts,
}

/// Starts a gateway; when this returns it answers requests. Until then it answers that it lives, and why it is not ready.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let startup = Startup::default();
    let told = startup.clone();
    let open = async move |backbone: &config::Backbone, environment: &Environment| {
        backbone::open_telling(backbone, environment, &|what| told.does(what)).await
    };
    serve_and_open(settings, startup, open).await
}

/// Starts a gateway on the backbone that `open` gives. It is opened after everything that can be refused without it.
pub async fn start_on(
    settings: Settings,
    open: impl AsyncFnOnce(&config::Backbone, &Environment) -> Result<Opened, Error>,
) -> Result<Running, StartError> {
    serve_and_open(settings, Startup::default(), open).await
}

async fn serve_and_open(
    settings: Settings,
    startup: Startup,
    open: impl AsyncFnOnce(&config::Backbone, &Environment) -> Result<Opened, Error>,
) -> Result<Running, StartError> {
    // Before it is read: what changes from here on is read again.
    let seen = settings.resources.as_deref().map(reload::look_at).unwrap_or_default();
    let resources = match &settings.resources {
        Some(path) => read_resources(path)?,
        None => Resources::default(),
    };
    let listener = Listener::bind(settings.http, false)?;
    let http = listener.address();

    let (memory_bytes, source) = memory::budget_bytes(settings.limits.memory_bytes);
    debug!(bytes = memory_bytes, ?source, "the budget of memory for what can grow");
    let backbone = Environment::system().with_memory(Budget::new(memory_bytes));
    let (edge, metrics) = (backbone.child(), Metrics::new());
    let server = serve(listener, &startup, &settings.limits, &edge, &metrics);
    if settings.backbone.url.broker().is_some() {
        info!(%http, backbone = %settings.backbone, "listens, and is not ready before the broker is reached");
    }
    let surroundings = Surroundings { http, backbone, edge, metrics, seen };
    match assemble(settings, resources, surroundings, &startup, open).await {
        Ok(whole) => Ok(Running { http, parts: whole.with(server) }),
        Err(error) => {
            server.shutdown(Duration::ZERO).await;
            Err(error)
        }
    }
}

/// What is there before anything is opened.
struct Surroundings {
    http: SocketAddr,
    backbone: Environment,
    edge: Environment,
    metrics: Arc<Metrics>,
    /// How the folder of resources looked before it was read.
    seen: reload::Look,
}

async fn assemble(
    settings: Settings,
    resources: Resources,
    Surroundings { http, backbone, edge, metrics, seen }: Surroundings,
    startup: &Startup,
    open: impl AsyncFnOnce(&config::Backbone, &Environment) -> Result<Opened, Error>,
) -> Result<Whole, StartError> {
    let opened = open(&settings.backbone, &backbone).await?;
    startup.does("joins the cluster");
    let here = MemberInfo {
        http: http.to_string().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        started_at: backbone.clock.unix_milliseconds(),
    };
    let cluster = membership::join(&opened, here, &backbone).await?;
    let Opened { log, health, version, .. } = opened;
    let bridges = Bridges::new(log, &backbone);
    let queues = QueueBrokers::default();
    let brokers = Arc::new(Brokers::new(Arc::clone(&bridges), queues.clone(), &backbone));
    brokers.apply(&resources);
    let log = Arc::clone(&bridges) as Arc<dyn PartitionLog>;
    let claims = Arc::clone(cluster.claims());
    if let Some(from) = migrate::incoming(claims.slot(CATALOGUE).as_ref())? {
        cluster.leave().await;
        return Err(StartError::Incoming { from });
    }
    let catalogue = Catalogue::open(Arc::clone(&log), claims.slot(CATALOGUE), &backbone).await?;

    let traces = match &settings.traces {
        Some(options) => Traces::export(options, &backbone, Arc::clone(&metrics) as Arc<dyn Exports>)?,
        None => Traces::off(),
    };
    if let Some(options) = &settings.traces {
        info!(endpoint = options.endpoint, ratio = options.sampling.ratio, "traces are exported");
    }
    let delivery = backbone.child();
    let observer = Arc::new(Watch::new(Arc::clone(&metrics), traces.clone(), settings.development, delivery.clone()));
    let consume = Consume::start(Arc::clone(&log), catalogue, claims.slots(), delivery.clone(), observer).await?;
    if let Some(requests) = cluster.requests() {
        consume.join(requests, Arc::clone(&claims) as Arc<dyn Owners>);
    }
    let options = pubsub::Options {
        create_topics_on_first_use: settings.create_topics_on_first_use,
        publish_timeout: settings.limits.publish_timeout,
        publishes_in_flight: settings.limits.publishes_in_flight,
        request_sinks: settings.request_sinks,
    };
    let outputs = Outputs::new(queues.clone());
    outputs.apply(&resources);
    // Deliveries that are out when no more are to go out end over their connections, which therefore stay longer.
    let sinks = Sinks::new(&backbone, outputs.clone());
    let block = PubSub::start(Arc::clone(&log), Arc::clone(&consume), delivery.clone(), options, sinks, traces.clone());
    if let Some(requests) = cluster.requests() {
        block.join(requests);
    }
    let bindings = Bindings::new(block.clone(), queues, claims.slots(), delivery.clone());
    bindings.join(&cluster);
    let reading = bindings.clone();
    let tenancy = Tenancy {
        consume: Arc::clone(&consume),
        bindings: bindings.clone(),
        metrics: Arc::clone(&metrics),
        releasing: Mutex::default(),
        taken_over: Mutex::default(),
    };
    let migration = Migration::new(migrate::Parts {
        bridges,
        claims: Arc::clone(&claims),
        requests: cluster.requests().cloned(),
        consume: Arc::clone(&consume),
        tenant: Arc::new(tenancy),
        targets: Arc::clone(&brokers) as Arc<dyn migrate::Targets>,
        http: http.to_string(),
        environment: delivery.clone(),
    });
    migration.begin().await?;
    startup.does("brings the declared resources into force");
    let whole = membership::apply(&block, &resources, settings.resources.as_deref()).await?;
    delivery.spawn(block.clone().deliver_all());
    bindings.apply(&resources);
    // Deliveries are taken up when it is known where they go.
    claims.begin(migration.tenant()).await;
    let apps = Apps::default();
    apps.apply(&resources);
    if let Some(path) = settings.resources {
        let declared = apps.clone();
        let declare = move |resources: &Resources| {
            brokers.apply(resources);
            outputs.apply(resources);
            bindings.apply(resources);
            declared.apply(resources);
        };
        delivery.spawn(reload::watch(path, seen, !whole, block.clone(), declare, delivery.clone()));
    }

    let readiness = Readiness::new(health.and(move || claims.silence()));
    let asked = readiness.clone();
    cluster.answer(move || asked.is_ready());
    let api = Api {
        traces: traces.clone(),
        apps,
        node: Node { capability: log.capability().clone(), broker_version: version },
        cluster: cluster.clone(),
        migration,
        log_filter: settings.log_filter,
        pubsub: block,
        bindings: reading,
        metrics: Arc::clone(&metrics),
        readiness: readiness.clone(),
        limits: Limits { batch_events: settings.limits.batch_events, ..Limits::default() },
        environment: edge.clone(),
    };
    readiness.set(true);
    startup.open(complete(router(api)));
    let grace = settings.limits.shutdown_grace;
    Ok(Whole { readiness, edge, delivery, consume, cluster, log, traces, backbone, grace })
}

/// Everything but the server, which is there from the beginning.
struct Whole {
    readiness: Readiness,
    edge: Environment,
    delivery: Environment,
    consume: Arc<Consume>,
    cluster: Cluster,
    log: Arc<dyn PartitionLog>,
    traces: Traces,
    backbone: Environment,
    grace: Duration,
}

impl Whole {
    fn with(self, server: Server) -> Parts {
        let Self { readiness, edge, delivery, consume, cluster, log, traces, backbone, grace } = self;
        Parts { readiness, server, edge, delivery, consume, cluster, log, traces, backbone, grace }
    }
}

fn read_resources(path: &Path) -> Result<Resources, StartError> {
    let read = resources::load(&[path.to_owned()], &resources::process_variable).map_err(StartError::Resources)?;
    for warning in &read.warnings {
        warn!("{warning}");
    }
    Ok(read)
}

fn serve(
    listener: Listener,
    startup: &Startup,
    limits: &config::Limits,
    environment: &Environment,
    metrics: &Arc<Metrics>,
) -> Server {
    let mut options = ListenerOptions::default();
    options.limits.connections = limits.connections;
    options.limits.connections_per_address = limits.connections_per_address;
    options.limits.header_timeout = limits.header_timeout;
    options.limits.idle_timeout = limits.idle_timeout;
    options.limits.write_timeout = limits.write_timeout;
    options.limits.requests_in_flight_per_client = limits.requests_in_flight_per_client;
    options.limits.requests_per_second_per_client = limits.requests_per_second_per_client;
    options.limits.body_bytes = Some(limits.request_body_bytes);
    if let Some(pace) = &mut options.limits.body_pace {
        pace.grace = limits.body_timeout;
    }
    options.limits.shutdown_grace = limits.shutdown_grace;
    let service = Guard::default().protect(startup.service());
    listener.serve(service, options, environment, Arc::clone(metrics))
}
