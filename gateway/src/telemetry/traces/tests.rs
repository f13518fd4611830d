//! Spans as an exporter of the library sees them.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use parking_lot::Mutex;
use tidegate_backbone::Environment;

use super::*;

const REMOTE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Ended {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}

/// Traces whose spans can be looked at as soon as they end.
fn recorded(sampler: Sampler) -> (Traces, Ended) {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(ended.clone())
        .with_sampler(sampler)
        .with_id_generator(identity::Ids(Environment::system().random))
        .build();
    let tracer = provider.tracer(SCOPE);
    (Traces(Some(Arc::new(Inner { tracer, provider }))), ended)
}

impl Ended {
    fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut *self.0.lock())
    }
}

fn event() -> Event {
    Event::builder("1", "/shop", "order.placed").build().unwrap()
}

fn attempt(event: &Event, number: u32, first_attempt_at: u64) -> Attempt<'_> {
    Attempt {
        event,
        topic: "orders",
        partition: 0,
        position: 7,
        subscription: "billing",
        uid: 42,
        number,
        first_attempt_at,
        sink: "http://127.0.0.1:9/hook",
    }
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| attribute.value.to_string())
}

fn traceparent(event: &Event) -> String {
    event.attribute("traceparent").unwrap_or_default().into_owned()
}

#[test]
fn off_means_that_nothing_is_touched() {
    let (traces, mut event) = (Traces::off(), event());
    let before = event.clone();
    let span = traces.publish("orders", &mut event);
    let mut headers = HeaderMap::new();
    traces.deliver(&attempt(&event, 1, 1)).put_into_headers(&mut headers);
    span.failed("unknown", &"nobody hears this");
    assert_eq!(event, before);
    assert!(headers.is_empty());
}

#[test]
fn an_event_gets_the_context_of_its_publish_and_keeps_one_that_it_has() {
    let (traces, ended) = recorded(Sampler::AlwaysOn);
    let mut plain = event();
    drop(traces.publish("orders", &mut plain));
    let span = ended.take().remove(0);
    assert_eq!(traceparent(&plain), context::format(&span.span_context));
    assert_eq!((span.name.as_ref(), span.span_kind.clone()), ("publish orders", SpanKind::Producer));
    assert_eq!(attribute(&span, "messaging.system").as_deref(), Some("tidegate"));
    assert_eq!(attribute(&span, "messaging.message.id").as_deref(), Some("1"));

    let own = Event::builder("2", "/shop", "t").extension("traceparent", Value::String(REMOTE.into())).build().unwrap();
    let mut published = own.clone();
    drop(traces.publish("orders", &mut published));
    assert_eq!(published, own);
    let span = ended.take().remove(0);
    assert_eq!(context::format(&span.span_context)[..35], REMOTE[..35]);
    assert_eq!(span.parent_span_id.to_string(), REMOTE[36..52]);
}

#[tokio::test]
async fn the_request_is_the_parent_and_another_trace_of_the_event_is_linked() {
    let (traces, ended) = recorded(Sampler::AlwaysOn);
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", REMOTE.parse().unwrap());
    headers.insert("tracestate", "vendor=x".parse().unwrap());
    let other = "00-11111111111111111111111111111111-2222222222222222-01";
    let mut plain = event();
    let mut own = Event::builder("2", "/s", "t").extension("traceparent", Value::String(other.into())).build().unwrap();
    Traces::within_request(&headers, || async {
        drop(traces.publish("orders", &mut plain));
        drop(traces.publish("orders", &mut own));
    })
    .await;
    let spans = ended.take();
    for span in &spans {
        assert_eq!(span.parent_span_id.to_string(), REMOTE[36..52]);
    }
    assert_eq!(plain.attribute("tracestate").as_deref(), Some("vendor=x"));
    assert_eq!(spans[0].links.len(), 0);
    assert_eq!(context::format(&spans[1].links[0].span_context), other);
    assert_eq!(traceparent(&own), other);
}

#[test]
fn a_repeated_attempt_links_to_the_first_though_nothing_remembers_it() {
    let published = {
        let (traces, _) = recorded(Sampler::AlwaysOn);
        let mut published = event();
        drop(traces.publish("orders", &mut published));
        published
    };
    // An event with a context and one without; what delivers the second time is another process.
    for event in [published, event()] {
        let (traces, ended) = recorded(Sampler::AlwaysOn);
        traces.deliver(&attempt(&event, 1, 1_000)).end(&super::Ended { status: Some(503), ..Default::default() });
        let first = ended.take().remove(0);
        let (traces, ended) = recorded(Sampler::AlwaysOn);
        traces.deliver(&attempt(&event, 2, 1_000)).end(&super::Ended { done: true, ..Default::default() });
        let second = ended.take().remove(0);
        assert_eq!(second.links[0].span_context.span_id(), first.span_context.span_id());
        assert_eq!(second.span_context.trace_id(), first.span_context.trace_id());
        assert_ne!(second.span_context.span_id(), first.span_context.span_id());
        assert!(second.links[0].span_context.is_sampled());
        assert_eq!(attribute(&first, "error.type").as_deref(), Some("503"));
        assert_eq!(attribute(&second, "error.type"), None);
        // A first attempt that never reached its sink was not the first: the next one has a time of its own.
        drop(traces.deliver(&attempt(&event, 1, 2_000)));
        assert_ne!(ended.take().remove(0).span_context.span_id(), first.span_context.span_id());
    }
}

#[test]
fn what_a_parent_decided_is_kept() {
    let (traces, ended) = recorded(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
    let mut plain = event();
    drop(traces.publish("orders", &mut plain));
    assert!(traceparent(&plain).ends_with("-00"), "{plain:?}");
    let mut headers = HeaderMap::new();
    traces.deliver(&attempt(&plain, 1, 1)).put_into_headers(&mut headers);
    assert!(headers["traceparent"].to_str().unwrap().ends_with("-00"));
    assert_eq!(ended.take().len(), 0);
    let sampled =
        Event::builder("2", "/s", "t").extension("traceparent", Value::String(REMOTE.into())).build().unwrap();
    drop(traces.deliver(&attempt(&sampled, 1, 1)));
    assert_eq!(ended.take().len(), 1);
}

#[tokio::test]
async fn what_a_delivery_publishes_is_its_child() {
    let (traces, ended) = recorded(Sampler::AlwaysOn);
    let mut reply = event();
    let span = traces.deliver(&attempt(&event(), 1, 1));
    span.scope(async {
        drop(traces.publish("replies", &mut reply));
        assert!(current_trace().is_some());
    })
    .await;
    assert!(current_trace().is_none());
    drop(span);
    let spans = ended.take();
    let (published, delivered) = (&spans[0], &spans[1]);
    assert_eq!(published.parent_span_id, delivered.span_context.span_id());
    assert_eq!(traceparent(&reply), context::format(&published.span_context));
}

#[test]
fn an_event_without_room_for_a_context_is_left_as_it_is() {
    let (traces, ended) = recorded(Sampler::AlwaysOn);
    let mut builder = Event::builder("1", "/s", "t");
    for number in 0..tidegate_schemas::limits::EVENT_ATTRIBUTES - 4 {
        builder = builder.extension(format!("x{number}"), Value::Boolean(true));
    }
    let mut full = builder.build().unwrap();
    let before = full.clone();
    drop(traces.publish("orders", &mut full));
    assert_eq!(full, before);
    assert_eq!(ended.take().len(), 1);
}
