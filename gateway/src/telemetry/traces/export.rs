//! Spans on their way out: a bounded queue, batches as protobuf over HTTP by the client that calls sinks, and figures of
//! what became of them. Whatever fails here is told once a minute and disturbs nobody.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::runtime::{self, Runtime, RuntimeChannel, TrySend, TrySendError};
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{BatchConfigBuilder, Sampler, SdkTracerProvider, SpanData, SpanExporter, SpanLimits};
use parking_lot::Mutex;
use tidegate_backbone::Environment;
use tidegate_schemas::limits;
use tracing::warn;

use super::identity::Ids;
use super::{Inner, Options, SCOPE, Sampling, Traces};
use crate::sink::{AddressPolicy, Http, Options as ClientOptions, Route};
use crate::telemetry::Throttle;

/// Told what became of spans, for figures.
pub trait Exports: Send + Sync + fmt::Debug {
    /// So many spans were exported, or not: `exported`, `failed`, or `dropped` where the queue was full.
    fn spans(&self, outcome: &'static str, count: usize);
}

/// The exporter cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be exported to {endpoint}: {reason}")]
pub struct ExportError {
    endpoint: String,
    reason: String,
}

impl Traces {
    /// Makes spans and exports them as the options say. Its tasks are those of `environment`, which has to outlive
    /// everything that makes spans.
    pub fn export(
        options: &Options,
        environment: &Environment,
        exports: Arc<dyn Exports>,
    ) -> Result<Self, ExportError> {
        let refuse =
            |reason: &dyn fmt::Display| ExportError { endpoint: options.endpoint.clone(), reason: reason.to_string() };
        let failure = Arc::new(Mutex::new(String::new()));
        let client = Collector {
            http: Http::new(ClientOptions { idle_connections: 1, ..ClientOptions::default() }, environment),
            failure: Arc::clone(&failure),
        };
        let otlp = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(options.endpoint.as_str())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(limits::TRACES_EXPORT_TIMEOUT)
            .with_headers(options.headers.iter().cloned().collect())
            // The library's own pauses between attempts block a thread of the runtime; `Collector` makes them.
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .map_err(|error| refuse(&error))?;
        let exporter = Told {
            otlp,
            failure,
            exports: Arc::clone(&exports),
            environment: environment.clone(),
            throttle: Throttle::new(limits::TRACES_FAILURE_INTERVAL),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(limits::TRACES_QUEUE_SPANS)
            .with_max_export_batch_size(limits::TRACES_BATCH_SPANS)
            .with_scheduled_delay(limits::TRACES_BATCH_INTERVAL)
            .with_max_export_timeout(limits::TRACES_EXPORT_TIMEOUT)
            .build();
        let tasks = Tasks { environment: environment.clone(), exports };
        let processor = BatchSpanProcessor::builder(exporter, tasks).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampler(options.sampling))
            .with_id_generator(Ids(Arc::clone(&environment.random)))
            .with_span_limits(SpanLimits::default())
            .with_resource(resource(&options.service_name))
            .build();
        let tracer = provider.tracer(SCOPE);
        Ok(Self(Some(Arc::new(Inner { tracer, provider }))))
    }
}

fn sampler(sampling: Sampling) -> Sampler {
    let by_ratio = match sampling.ratio {
        ratio if ratio >= 1.0 => Sampler::AlwaysOn,
        ratio if ratio <= 0.0 => Sampler::AlwaysOff,
        ratio => Sampler::TraceIdRatioBased(ratio),
    };
    if sampling.parent_based { Sampler::ParentBased(Box::new(by_ratio)) } else { by_ratio }
}

/// The name and the version, and what `OTEL_RESOURCE_ATTRIBUTES` says, which goes before them.
fn resource(service_name: &str) -> Resource {
    let ours = Resource::builder_empty()
        .with_service_name(service_name.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    ours.with_detector(Box::new(opentelemetry_sdk::resource::EnvResourceDetector::new())).build()
}

/// The client of sinks, for the library that exports. It sends again what the collector could not take for now, as OTLP
/// asks for, as long as the library waits.
#[derive(Debug)]
struct Collector {
    http: Http,
    /// Why the last request failed; the library does not pass it on.
    failure: Arc<Mutex<String>>,
}

impl HttpClient for Collector {
    fn send_bytes<'this, 'sent>(
        &'this self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'sent>>
    where
        'this: 'sent,
        Self: 'sent,
    {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let mut pause = limits::TRACES_RETRY_DELAY;
            loop {
                let (headers, body) = (parts.headers.clone(), body.clone());
                let timeout = limits::TRACES_EXPORT_TIMEOUT;
                let route = Route { uri: &parts.uri, policy: AddressPolicy::Any, trust: None };
                let sent = self.http.deliver(route, headers, body, timeout).await;
                let wait = match sent {
                    Ok(answer) if is_passing(answer.status) => {
                        *self.failure.lock() = format!("it answered {}", answer.status);
                        retry_after(&answer.headers).unwrap_or(pause).max(pause)
                    }
                    Ok(answer) => {
                        *self.failure.lock() = format!("it answered {}", answer.status);
                        let mut response = http::Response::new(answer.body);
                        *response.status_mut() = answer.status;
                        *response.headers_mut() = answer.headers;
                        return Ok(response);
                    }
                    Err(failure) => {
                        *self.failure.lock() = failure.to_string().replace("the sink", "the collector");
                        pause
                    }
                };
                tokio::time::sleep(wait).await;
                pause = (pause * 2).min(limits::TRACES_RETRY_DELAY_MAX);
            }
        })
    }
}

/// The answers after which OTLP says to try again.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The exporter, with figures of what it does and a line where it fails.
#[derive(Debug)]
struct Told {
    otlp: opentelemetry_otlp::SpanExporter,
    failure: Arc<Mutex<String>>,
    exports: Arc<dyn Exports>,
    environment: Environment,
    throttle: Throttle,
}

/// What is told where an export does not end: the library gives it up by dropping it.
struct Untold<'a> {
    exporter: &'a Told,
    spans: usize,
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        if self.spans > 0 {
            self.exporter.failed(self.spans);
        }
    }
}

impl Told {
    fn failed(&self, spans: usize) {
        self.exports.spans("failed", spans);
        if let Some(untold) = self.throttle.pass(self.environment.clock.since_boot()) {
            let reason = self.failure.lock().clone();
            warn!(spans, reason, untold, "spans could not be exported and are lost; events are not affected");
        }
    }
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let mut untold = Untold { exporter: self, spans };
        let outcome = self.otlp.export(batch).await;
        if outcome.is_ok() {
            untold.spans = 0;
            self.exports.spans("exported", spans);
        }
        outcome
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// The library's tasks as those of an environment: they end with it at the latest.
#[derive(Clone, Debug)]
struct Tasks {
    environment: Environment,
    exports: Arc<dyn Exports>,
}

impl Runtime for Tasks {
    fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stopping = self.environment.stopping().clone();
        self.environment.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = future => {}
            }
        });
    }

    fn delay(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        tokio::time::sleep(duration)
    }
}

impl RuntimeChannel for Tasks {
    type Receiver<T: fmt::Debug + Send> = <runtime::Tokio as RuntimeChannel>::Receiver<T>;
    type Sender<T: fmt::Debug + Send> = Counting<<runtime::Tokio as RuntimeChannel>::Sender<T>>;

    fn batch_message_channel<T: fmt::Debug + Send>(&self, capacity: usize) -> (Self::Sender<T>, Self::Receiver<T>) {
        let (queue, receiver) = runtime::Tokio.batch_message_channel(capacity);
        (Counting { queue, exports: Arc::clone(&self.exports) }, receiver)
    }
}

/// The sending end of the queue of spans, which counts what finds it full.
#[derive(Debug)]
struct Counting<S> {
    queue: S,
    exports: Arc<dyn Exports>,
}

impl<S: TrySend> TrySend for Counting<S> {
    type Message = S::Message;

    fn try_send(&self, message: Self::Message) -> Result<(), TrySendError> {
        let sent = self.queue.try_send(message);
        if matches!(sent, Err(TrySendError::ChannelFull)) {
            self.exports.spans("dropped", 1);
        }
        sent
    }
}
