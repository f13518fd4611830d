use http::{HeaderMap, HeaderName, HeaderValue, header};
use tidegate_schemas::Event;
use tidegate_schemas::webhook::ID as WEBHOOK_ID;
use xxhash_rust::xxh3::Xxh3Default;

/// Which attempt it is: begins with 1.
const ATTEMPT: HeaderName = HeaderName::from_static("tidegate-attempt");
pub(super) const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
/// Attributes of the Distributed Tracing extension that HTTP has headers of its own for (W3C Trace Context).
const TRACE: [HeaderName; 2] = [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

/// One attempt of one delivery: what a sink is told beside the event.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The subscription that delivers; its uid, so that one that is deleted and created again is another.
    pub subscription: &'a str,
    /// The event.
    pub event: &'a Event,
    /// Which attempt it is; begins with 1.
    pub number: u32,
}

impl Attempt<'_> {
    /// Adds to the headers of a written event (binary or structured mode) those of the attempt.
    pub fn append_headers(&self, headers: &mut HeaderMap) {
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(ATTEMPT, HeaderValue::from(self.number));
        headers.insert(WEBHOOK_ID, self.webhook_id());
        for name in TRACE {
            let value = self.event.attribute(name.as_str());
            // What is no header value is no trace context either.
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                headers.insert(name, value);
            }
        }
    }
}

impl Attempt<'_> {
    /// The idempotency key of the delivery as a header value.
    pub fn webhook_id(&self) -> HeaderValue {
        let id = webhook_id(self.subscription, self.event.source(), self.event.id());
        HeaderValue::from_str(&id).expect("hexadecimal digits are a header value")
    }
}

/// The idempotency key of a delivery: the same for every attempt, another for another subscription or event. 128 bits in
/// hexadecimal.
pub fn webhook_id(subscription: &str, source: &str, id: &str) -> String {
    let mut hasher = Xxh3Default::new();
    for part in [subscription, source, id] {
        // The length goes first, so that no two triples run together into the same bytes.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    format!("{:032x}", hasher.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_stable_and_keeps_its_parts_apart() {
        // Golden: sinks remember keys over an upgrade of the gateway.
        assert_eq!(webhook_id("large-orders", "/shop", "1"), "e677cf5d9edae9d6a8c19f31028cf3d2");
        let keys = [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("", "ab", "c"), ("b", "a", "c")];
        let keys: std::collections::HashSet<_> = keys.map(|(a, b, c)| webhook_id(a, b, c)).into();
        assert_eq!(keys.len(), 5);
    }

    #[test]
    fn an_attempt_tells_its_number_its_key_and_its_trace() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let event = Event::builder("1", "/shop", "order.placed")
            .extension("traceparent", tidegate_schemas::Value::String(trace.into()))
            .build()
            .unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("forged"));
        let told = |number: u32, headers: &mut HeaderMap| {
            Attempt { subscription: "large-orders", event: &event, number }.append_headers(headers);
            headers["webhook-id"].clone()
        };
        let first = told(1, &mut headers);
        assert_eq!(told(2, &mut headers), first);
        assert_eq!(headers["tidegate-attempt"], "2");
        assert_eq!(headers["traceparent"], trace);
        assert!(!headers.contains_key("tracestate"));
        assert_eq!(headers.get_all("user-agent").iter().count(), 1);
        assert!(headers["user-agent"].to_str().unwrap().starts_with("tidegate/"));
    }
}
