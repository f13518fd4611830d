//! Traces over OTLP: one trace from a publish to each of its deliveries, hours later and in another process if need be.
//!
//! | span | kind | parent |
//! |---|---|---|
//! | `publish TOPIC` | producer | the `traceparent` header of the request; else the event's own context; else none |
//! | `route TOPIC` | internal | the context that the event carries |
//! | `deliver TOPIC` | client, or internal into another topic | the context that the event carries |
//!
//! The context travels in the event, in the attributes of the Distributed Tracing extension (`traceparent`, `tracestate`).
//! An event that comes without gets that of its publish span before it is stored; one that has its own keeps it, as the
//! extension demands. A sink gets the context of the deliver span in its `traceparent` header. Whatever is published
//! within a delivery, by a `topic://` sink or as a reply, is a child of that delivery.
//!
//! A repeated delivery is a span of its own with a link to that of the first attempt. Nothing has to be remembered for
//! that: the span id of a first attempt is a hash of what names it (`identity::first_attempt`), so it can be told again
//! after a restart.
//!
//! Attributes follow the semantic conventions of OpenTelemetry for messaging, HTTP and CloudEvents. Nothing else in the
//! gateway names OpenTelemetry. Where no endpoint is configured [`Traces`] is empty, and each call is one branch.

mod context;
mod export;
mod identity;
mod options;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{Link, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, SpanId, TraceId};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tidegate_schemas::{Event, Value};

pub use context::current_trace;
pub use export::{ExportError, Exports};
pub use options::{Options, OptionsError, Sampling};

/// The name of the instrumentation scope.
const SCOPE: &str = "tidegate";

/// Makes spans, or nothing at all where traces are off. Clones share everything.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

struct Inner {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

impl fmt::Debug for Traces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Traces").field(&self.is_on()).finish()
    }
}

/// An event that the router has read and matched.
#[derive(Clone, Copy, Debug)]
pub struct Routed<'a> {
    /// The event.
    pub event: &'a Event,
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// When it was stored, in milliseconds since 1970: the span begins there, so that it shows what the event waited.
    pub appended_at: u64,
    /// Subscriptions that it matches.
    pub subscriptions: usize,
}

/// One attempt of a delivery.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The event.
    pub event: &'a Event,
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its position.
    pub position: u64,
    /// The subscription's name.
    pub subscription: &'a str,
    /// The subscription's uid: one that is created again under the same name is another.
    pub uid: u64,
    /// Which attempt it is, from 1.
    pub number: u32,
    /// When the first one began, in milliseconds since 1970.
    pub first_attempt_at: u64,
    /// The sink as it may be shown: without what came from the process environment.
    pub sink: &'a str,
}

/// How an attempt ended, for its span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended<'a> {
    /// What the sink answered, where it did.
    pub status: Option<u16>,
    /// Whether the event was delivered.
    pub done: bool,
    /// The kind of the failure where there was no answer, as a word that does not change.
    pub error_type: &'static str,
    /// What went wrong, where something did.
    pub detail: &'a str,
}

impl Traces {
    /// No traces.
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether spans are made.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Runs `future` within the context that the headers of a request name, if they do.
    pub async fn within_request<F: Future>(headers: &HeaderMap, future: impl FnOnce() -> F) -> F::Output {
        match context::of_headers(headers) {
            Some(remote) => future().with_context(Context::new().with_remote_span_context(remote)).await,
            None => future().await,
        }
    }

    /// Begins the span of a publish, below the span or request within which this is called, and gives the event the
    /// context of that span where it has none of its own.
    pub fn publish(&self, topic: &str, event: &mut Event) -> Span {
        let Some(inner) = &self.0 else { return Span(None) };
        let own = context::of_event(event);
        let current = Context::current();
        let parent = match (&own, current.has_active_span()) {
            (Some(own), false) => Context::new().with_remote_span_context(own.clone()),
            _ => current,
        };
        // A request within one trace may carry an event of another.
        let elsewhere = own.clone().filter(|own| own.trace_id() != parent.span().span_context().trace_id());
        let mut attributes = messaging("publish", topic, event);
        attributes.push(KeyValue::new("messaging.operation.type", "send"));
        attributes.push(KeyValue::new("messaging.message.body.size", as_i64(event.data().as_bytes().len())));
        let builder = SpanBuilder::from_name(format!("publish {topic}"))
            .with_kind(SpanKind::Producer)
            .with_attributes(attributes)
            .with_links(elsewhere.into_iter().map(|elsewhere| Link::new(elsewhere, Vec::new(), 0)).collect());
        let span = Span::begin(inner, builder, &parent);
        if own.is_none() {
            span.put_into(event);
        }
        span
    }

    /// Records that the router has matched an event.
    pub fn route(&self, routed: &Routed<'_>) {
        let Some(inner) = &self.0 else { return };
        let Some(parent) = context::of_event(routed.event) else { return };
        let mut attributes = messaging("route", routed.topic, routed.event);
        attributes.push(KeyValue::new("messaging.destination.partition.id", routed.partition.to_string()));
        attributes.push(KeyValue::new("tidegate.subscriptions.matched", as_i64(routed.subscriptions)));
        let builder = SpanBuilder::from_name(format!("route {}", routed.topic))
            .with_kind(SpanKind::Internal)
            .with_start_time(SystemTime::UNIX_EPOCH + Duration::from_millis(routed.appended_at))
            .with_attributes(attributes);
        drop(Span::begin(inner, builder, &Context::new().with_remote_span_context(parent)));
    }

    /// Begins the span of one attempt of a delivery.
    pub fn deliver(&self, attempt: &Attempt<'_>) -> Span {
        let Some(inner) = &self.0 else { return Span(None) };
        let parent = context::of_event(attempt.event);
        let trace = parent.as_ref().map_or_else(|| identity::trace_of(attempt), |parent| parent.trace_id());
        let first = identity::first_attempt(trace, attempt);
        let is_first = attempt.number == 1;
        let over_http = !attempt.sink.starts_with("topic:");
        let mut attributes = messaging("deliver", attempt.topic, attempt.event);
        attributes.extend([
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.destination.partition.id", attempt.partition.to_string()),
            KeyValue::new("messaging.destination.subscription.name", attempt.subscription.to_owned()),
            KeyValue::new("tidegate.delivery.attempt", i64::from(attempt.number)),
            KeyValue::new("tidegate.sink", attempt.sink.to_owned()),
        ]);
        if over_http {
            attributes.extend(request(attempt));
        }
        let builder = SpanBuilder::from_name(format!("deliver {}", attempt.topic))
            .with_kind(if over_http { SpanKind::Client } else { SpanKind::Internal })
            .with_attributes(attributes);
        let parent = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let span = identity::with(trace, is_first.then_some(first), || Span::begin(inner, builder, &parent));
        if !is_first {
            span.link(trace, first);
        }
        span
    }

    /// Exports what waits and ends; at most `grace`. Spans that are made later go nowhere.
    pub async fn shutdown(&self, grace: Duration) {
        let Some(inner) = &self.0 else { return };
        let provider = inner.provider.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "one call at the end of the process; it waits for a task that ends with the backbone's environment"
        )]
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(grace));
        let in_time = tokio::time::timeout(grace, flushed).await;
        if !matches!(in_time, Ok(Ok(Ok(())))) {
            tracing::warn!("the last spans could not be exported before the process ends");
        }
    }
}

/// A span that was begun; it ends when this is dropped, or at [`Span::end`]. Empty where traces are off.
#[derive(Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    fn begin(inner: &Inner, builder: SpanBuilder, parent: &Context) -> Self {
        let span = inner.tracer.build_with_context(builder, parent);
        Self(Some(Context::new().with_span(span)))
    }

    /// Links to another span of the same trace. Whether a trace is sampled is decided by its id and by its parent, so the
    /// other was decided as this one is.
    fn link(&self, trace: TraceId, other: SpanId) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        let sampled = span.span_context().is_sampled();
        span.add_link(identity::span_context(trace, other, sampled), Vec::new());
    }

    /// Runs `future` within this span: what it publishes is a child of it, and its log lines carry the trace id.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        match &self.0 {
            Some(context) => future.with_context(context.clone()).await,
            None => future.await,
        }
    }

    /// Sets `traceparent` and `tracestate` to this span's context.
    pub fn put_into_headers(&self, headers: &mut HeaderMap) {
        if let Some(context) = &self.0 {
            context::into_headers(context.span().span_context(), headers);
        }
    }

    /// Gives an event the context of this span. An event that has no room left for it stays as it is.
    fn put_into(&self, event: &mut Event) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        let span_context = span.span_context();
        let mut builder = event.clone().into_builder();
        builder = builder.extension(context::TRACEPARENT, Value::String(context::format(span_context).into()));
        let state = span_context.trace_state().header();
        if !state.is_empty() {
            builder = builder.extension(context::TRACESTATE, Value::String(state.into()));
        }
        if let Ok(carrying) = builder.build() {
            *event = carrying;
        }
    }

    /// Records where a published event is stored.
    pub fn stored(&self, partition: u32, offset: Option<u64>) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("messaging.destination.partition.id", partition.to_string()));
        if let Some(offset) = offset.and_then(|offset| i64::try_from(offset).ok()) {
            span.set_attribute(KeyValue::new("tidegate.message.offset", offset));
        }
    }

    /// Records a failure: its kind as a word that does not change, and what went wrong.
    pub fn failed(&self, error_type: &'static str, detail: &dyn fmt::Display) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("error.type", error_type));
        span.set_status(Status::error(detail.to_string()));
    }

    /// Records how an attempt ended, and ends the span; its context can still be used.
    pub fn end(&self, ended: &Ended<'_>) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        if let Some(status) = ended.status {
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        if !ended.done {
            let error_type = ended.status.map_or_else(|| ended.error_type.to_owned(), |status| status.to_string());
            span.set_attribute(KeyValue::new("error.type", error_type));
            // The status says it all where there is one; an answer's body may hold anything.
            let description = if ended.status.is_some() { String::new() } else { ended.detail.to_owned() };
            span.set_status(Status::error(description));
        }
        span.end();
    }
}

fn messaging(operation: &'static str, topic: &str, event: &Event) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(16);
    attributes.extend([
        KeyValue::new("messaging.system", "tidegate"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.destination.name", topic.to_owned()),
        KeyValue::new("messaging.message.id", event.id().to_string()),
        KeyValue::new("cloudevents.event_id", event.id().to_string()),
        KeyValue::new("cloudevents.event_source", event.source().to_string()),
        KeyValue::new("cloudevents.event_type", event.kind().to_string()),
    ]);
    if let Some(subject) = event.subject() {
        attributes.push(KeyValue::new("cloudevents.event_subject", subject.to_string()));
    }
    attributes
}

/// What is known of the request to a sink before it is made.
fn request(attempt: &Attempt<'_>) -> Vec<KeyValue> {
    let mut attributes =
        vec![KeyValue::new("http.request.method", "POST"), KeyValue::new("url.full", attempt.sink.to_owned())];
    if attempt.number > 1 {
        attributes.push(KeyValue::new("http.request.resend_count", i64::from(attempt.number - 1)));
    }
    // A part that came from the process environment makes it no URL.
    if let Ok(uri) = attempt.sink.parse::<http::Uri>()
        && let Some(host) = uri.host()
    {
        let port = uri.port_u16().unwrap_or_else(|| if uri.scheme_str() == Some("https") { 443 } else { 80 });
        attributes.push(KeyValue::new("server.address", host.to_owned()));
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
    attributes
}

fn as_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
