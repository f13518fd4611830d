//! The kind `Gateway`: the configuration file of `tidegate serve`.
//!
//! ```yaml
//! apiVersion: tidegate.dev/v1
//! kind: Gateway
//! spec:
//!   listeners: {http: 127.0.0.1:3500, grpc: 127.0.0.1:50001}
//!   backbone: embedded:./data
//!   resources: ./resources
//!   topics: {createOnFirstUse: false}
//!   limits: {requestBody: 4MiB, batchEvents: 1000, connections: 10000, connectionsPerAddress: 1000,
//!            publishesInFlight: 8192, requestsInFlightPerClient: 4096, headerTimeout: 10s, bodyTimeout: 10s,
//!            writeTimeout: 60s, idleTimeout: 75s, publishTimeout: 5s, shutdownGrace: 30s}
//!   security: {privateSinks: false}
//!   telemetry: {log: {level: info, format: text}}
//! ```
//!
//! A broker in place of the embedded log is named by its URL, or by a section with more to say: [`Backbone`].
//!
//! Traces go nowhere unless `telemetry` names a collector: `otlp: {endpoint: http://127.0.0.1:4318, headers:
//! {authorization: "Bearer ${env:OTLP_TOKEN}"}, sampling: 0.1}`.
//!
//! Every key may be left out. Two limits have no number as their default: `memory` is a quarter of what the process may
//! have, and `requestsPerSecondPerClient` is off. Relative paths count from the working directory, as those on the command line
//! do, so that a backbone URL means the same in both. The file is read by the reader of resources: all faults at once, unknown
//! keys refused, `${env:NAME}` in texts.

pub(crate) mod backbone;
mod listener;
mod telemetry;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_schemas::limits;

use crate::document::Header;
use crate::reader::{Field, Reader};
use crate::{Collected, Diagnostic, ErrorSeverity, Variables, read_documents, read_text};

pub use backbone::{Backbone, BackboneUrl, Broker, Credentials, Host, Mechanism, Tls, built_in};
pub use listener::parse_listener;
pub use telemetry::{LogFormat, LogLevel, Otlp, Ratio, Telemetry};

/// How one process serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Where HTTP is served; always loopback in this version.
    pub http: SocketAddr,
    /// Where gRPC is served; always loopback in this version.
    pub grpc: SocketAddr,
    /// What carries the events; nothing where the command line has to say.
    pub backbone: Option<Backbone>,
    /// The folder with the resources.
    pub resources: Option<PathBuf>,
    /// Whether a topic that does not exist is created by the first event for it.
    pub create_topics_on_first_use: bool,
    /// Whether subscriptions that requests create may call addresses that are not public; those of files always may.
    pub private_sinks: bool,
    /// The limits of the listeners.
    pub limits: Limits,
    /// What the process tells of itself.
    pub telemetry: Telemetry,
}

impl Default for Gateway {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            http: loopback(3500),
            grpc: loopback(50_001),
            backbone: None,
            resources: None,
            create_topics_on_first_use: false,
            private_sinks: false,
            limits: Limits::default(),
            telemetry: Telemetry::default(),
        }
    }
}

/// The limits that a configuration may change; the others are in [`tidegate_schemas::limits`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory for what can grow with what clients send; nothing for a quarter of what the process may have.
    pub memory_bytes: Option<usize>,
    /// The body of a request.
    pub request_body_bytes: usize,
    /// Events in one batch.
    pub batch_events: usize,
    /// Open connections of all clients.
    pub connections: usize,
    /// Open connections of one client address.
    pub connections_per_address: usize,
    /// Events on their way to the log.
    pub publishes_in_flight: usize,
    /// Requests of one client address that wait for their answer.
    pub requests_in_flight_per_client: usize,
    /// Requests of one client address in a second; no limit where there is none.
    pub requests_per_second_per_client: Option<u32>,
    /// From the opening of a connection, or the first byte of a request, to the end of its header.
    pub header_timeout: Duration,
    /// How far the body of a request may fall behind its pace.
    pub body_timeout: Duration,
    /// How far a client may fall behind in reading its answer.
    pub write_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// From a publish to its receipt.
    pub publish_timeout: Duration,
    /// What shutdown waits for deliveries and requests in flight.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: None,
            request_body_bytes: limits::REQUEST_BODY_BYTES,
            batch_events: limits::BATCH_EVENTS,
            connections: limits::CONNECTIONS,
            connections_per_address: limits::CONNECTIONS_PER_ADDRESS,
            publishes_in_flight: limits::PUBLISHES_IN_FLIGHT,
            requests_in_flight_per_client: limits::REQUESTS_IN_FLIGHT_PER_CLIENT,
            requests_per_second_per_client: None,
            header_timeout: limits::HEADER_TIMEOUT,
            body_timeout: limits::BODY_GRACE,
            write_timeout: limits::WRITE_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            publish_timeout: limits::PUBLISH_TIMEOUT,
            shutdown_grace: limits::SHUTDOWN_GRACE,
        }
    }
}

/// Reads the configuration file of `serve`: exactly one document of the kind `Gateway`. The error holds every fault.
pub fn load(path: &Path, variables: &Variables<'_>) -> Result<Gateway, Vec<Diagnostic>> {
    let text = read_text(path).map_err(|diagnostic| vec![diagnostic])?;
    let file = path.display().to_string().into();
    let mut collected = Collected::default();
    let mut diagnostics = read_documents(&file, &text, variables, true, &mut collected);
    let others = collected.len() - collected.gateways.len();
    if others > 0 {
        diagnostics.push(Diagnostic::of_file(
            &file,
            "holds resources beside the `Gateway`",
            "move them into a folder and name it with `resources` in the `Gateway`, or with `--resources`",
        ));
    }
    if collected.gateways.len() > 1 {
        diagnostics.push(Diagnostic::of_file(&file, "holds more than one `Gateway`", "remove all but one"));
    }
    let has_fault = diagnostics.iter().any(|diagnostic| diagnostic.severity == ErrorSeverity);
    match collected.gateways.pop() {
        Some(gateway) if !has_fault => Ok(gateway),
        None if !has_fault => {
            Err(vec![Diagnostic::of_file(&file, "holds no `Gateway`", "write one, beginning with `kind: Gateway`")])
        }
        _ => Err(diagnostics),
    }
}

pub(crate) fn read(reader: &mut Reader<'_>, header: &Header<'_>) -> Option<Gateway> {
    let mut gateway = Gateway::default();
    let Some(spec) = &header.spec else { return Some(gateway) };
    let known = ["listeners", "backbone", "resources", "topics", "limits", "telemetry", "security"];
    let fields = reader.map(spec, &known)?;
    if let Some(field) = fields.get("security")
        && let Some(security) = reader.map(&field, &["privateSinks", "access"])
    {
        if let Some(field) = security.get("access") {
            reader.not_available(&field, "remove it; the listeners serve this machine only");
        }
        if let Some(field) = security.get("privateSinks") {
            gateway.private_sinks = reader.boolean(&field).unwrap_or_default();
        }
    }
    if let Some(field) = fields.get("listeners") {
        read_listeners(reader, &field, &mut gateway);
    }
    if let Some(field) = fields.get("backbone") {
        gateway.backbone = backbone::read(reader, &field);
    }
    if let Some(field) = fields.get("resources") {
        gateway.resources = reader.parsed(&field, |text| match text {
            "" => Err("is empty; name the folder with the resources, or remove the key"),
            path => Ok(PathBuf::from(path)),
        });
    }
    if let Some(field) = fields.get("topics")
        && let Some(topics) = reader.map(&field, &["createOnFirstUse"])
        && let Some(field) = topics.get("createOnFirstUse")
    {
        gateway.create_topics_on_first_use = reader.boolean(&field).unwrap_or_default();
    }
    if let Some(field) = fields.get("limits") {
        read_limits(reader, &field, &mut gateway.limits);
    }
    if let Some(field) = fields.get("telemetry") {
        telemetry::read(reader, &field, &mut gateway.telemetry);
    }
    Some(gateway)
}

fn read_listeners(reader: &mut Reader<'_>, field: &Field<'_>, gateway: &mut Gateway) -> Option<()> {
    let fields = reader.map(field, &["http", "grpc"])?;
    if let Some(field) = fields.get("http") {
        gateway.http = reader.parsed(&field, parse_listener).unwrap_or(gateway.http);
    }
    if let Some(field) = fields.get("grpc") {
        gateway.grpc = reader.parsed(&field, parse_listener).unwrap_or(gateway.grpc);
    }
    // Port 0 asks for any free one, twice.
    if gateway.http == gateway.grpc && gateway.http.port() != 0 {
        reader.fault(field.key_place, "`http` and `grpc` listen on the same address", "give them different ports");
    }
    Some(())
}

fn read_limits(reader: &mut Reader<'_>, field: &Field<'_>, limits: &mut Limits) -> Option<()> {
    const MIB: u64 = 1024 * 1024;
    let known = [
        "memory",
        "requestBody",
        "batchEvents",
        "connections",
        "connectionsPerAddress",
        "publishesInFlight",
        "requestsInFlightPerClient",
        "requestsPerSecondPerClient",
        "headerTimeout",
        "bodyTimeout",
        "writeTimeout",
        "idleTimeout",
        "publishTimeout",
        "shutdownGrace",
    ];
    let fields = reader.map(field, &known)?;
    if let Some(field) = fields.get("memory")
        && let Some(bytes) = reader.size(&field, limits::MEMORY_BYTES_MIN as u64..=1024 * 1024 * MIB)
    {
        limits.memory_bytes = usize::try_from(bytes).ok();
    }
    // An event of the greatest size must still fit.
    if let Some(field) = fields.get("requestBody")
        && let Some(bytes) = reader.size(&field, MIB..=64 * MIB)
    {
        limits.request_body_bytes = usize::try_from(bytes).unwrap_or(limits.request_body_bytes);
    }
    for (key, most, limit) in [
        ("batchEvents", 10_000, &mut limits.batch_events),
        ("connections", 1_000_000, &mut limits.connections),
        ("connectionsPerAddress", 1_000_000, &mut limits.connections_per_address),
        ("publishesInFlight", 1_000_000, &mut limits.publishes_in_flight),
        ("requestsInFlightPerClient", 1_000_000, &mut limits.requests_in_flight_per_client),
    ] {
        if let Some(field) = fields.get(key)
            && let Some(number) = reader.integer_u32(&field, 1..=most)
        {
            *limit = usize::try_from(number).unwrap_or(*limit);
        }
    }
    if let Some(field) = fields.get("requestsPerSecondPerClient") {
        limits.requests_per_second_per_client = reader.integer_u32(&field, 1..=1_000_000);
    }
    for (key, limit) in [
        ("headerTimeout", &mut limits.header_timeout),
        ("bodyTimeout", &mut limits.body_timeout),
        ("writeTimeout", &mut limits.write_timeout),
        ("idleTimeout", &mut limits.idle_timeout),
        ("publishTimeout", &mut limits.publish_timeout),
        ("shutdownGrace", &mut limits.shutdown_grace),
    ] {
        if let Some(field) = fields.get(key)
            && let Some(duration) = reader.duration(&field, Duration::from_millis(100)..=Duration::from_secs(60 * 60))
        {
            *limit = duration;
        }
    }
    Some(())
}
