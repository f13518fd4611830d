//! Where the events of one subscription go, with everything that a request there needs and the catalogue does not keep:
//! keys, the values of headers, trusted certificates.

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, HeaderName, Uri};
use tidegate_backbone::catalogue::{HandshakeSpec, Mode, RequestSpec, SubscriptionSpec};
use tidegate_resources::{self as resources, Sink};
use tidegate_schemas::http as binding;
use tidegate_schemas::webhook::{Signer, SigningKey};

use super::{AddressPolicy, Attempt, Route, Trust};

/// Who asks for consent, and who sends what was consented to.
pub(crate) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");

/// What stands for a value that is not shown.
const REDACTED: &str = "[redacted]";

/// See the module.
#[derive(Debug)]
pub struct Target {
    sink: Sink,
    declared: resources::Request,
    signer: Option<Signer>,
    headers: HeaderMap,
    trust: Option<Trust>,
    policy: AddressPolicy,
}

impl Target {
    /// The target that a file declares. The error has the form `what; how to mend it` and holds no secret.
    pub fn declared(sink: &Sink, request: &resources::Request) -> Result<Self, String> {
        let mut keys = Vec::with_capacity(request.signing.len());
        for secret in &request.signing {
            keys.push(
                SigningKey::parse(secret.expose()).map_err(|fault| format!("the secret {} {fault}", secret.named()))?,
            );
        }
        let mut headers = HeaderMap::new();
        for header in &request.headers {
            let mut value = HeaderValue::from_str(header.value.expose())
                .map_err(|_| format!("the header {} has no valid value; use printable ASCII", header.name))?;
            value.set_sensitive(true);
            headers.insert(header.name.clone(), value);
        }
        let trust = match &request.trust {
            Some(authorities) => {
                let trust = Trust::new(&authorities.certificates);
                Some(trust.map_err(|reason| format!("{}: {reason}; name a file with others", authorities.file))?)
            }
            None => None,
        };
        Ok(Self {
            sink: sink.clone(),
            declared: request.clone(),
            signer: (!keys.is_empty()).then(|| Signer::new(keys)),
            headers,
            trust,
            policy: AddressPolicy::Any,
        })
    }

    /// The target of a subscription that no file declares: all there is to know stands in the catalogue. It may have the
    /// addresses that `policy` allows.
    pub fn listed(spec: &SubscriptionSpec, policy: AddressPolicy) -> Result<Self, String> {
        if spec.request.needs_its_file() {
            return Err("its keys, headers or certificates are named in a file that was not read; declare it in a \
                        resource file again"
                .to_owned());
        }
        let sink = Sink::parse(&spec.sink)?;
        Ok(Self { policy, ..Self::declared(&sink, &resources::Request::default())? })
    }

    /// Whether a file declares the same as before, so that its connections can stay.
    pub fn is_declared_as(&self, sink: &Sink, request: &resources::Request) -> bool {
        self.sink == *sink && self.declared == *request
    }

    /// Where events go.
    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    /// How to reach it at that address.
    pub fn route<'a>(&'a self, uri: &'a Uri) -> Route<'a> {
        Route { uri, policy: self.policy, trust: self.trust.as_ref() }
    }

    /// One attempt as a request: its header and body. `now` is the wall clock in seconds since 1970.
    pub fn write(&self, attempt: &Attempt<'_>, request: &RequestSpec, now_unix_seconds: u64) -> (HeaderMap, Bytes) {
        let structured = self.signer.is_some() || request.mode == Mode::Structured;
        let (mut headers, body) =
            if structured { binding::write_structured(attempt.event) } else { binding::write_binary(attempt.event) };
        headers.extend(self.headers.clone());
        attempt.append_headers(&mut headers);
        if let Some(handshake) = &request.handshake {
            append_origin(&mut headers, handshake);
        }
        if let Some(signer) = &self.signer {
            signer.append_headers(&mut headers, attempt.webhook_id(), now_unix_seconds, &body);
        }
        (headers, body)
    }

    /// What a sink said, without what only it may know: pages of errors often give back the request's header.
    pub fn redact(&self, said: &str) -> String {
        let mut said = said.to_owned();
        for header in self.declared.headers.iter().filter(|header| header.value.is_named()) {
            let value = header.value.expose();
            // A scheme of authorization is a word before the secret, and sinks give back either.
            let secret = value.split_once(' ').map_or(value, |(_, secret)| secret.trim());
            if !secret.is_empty() {
                said = said.replace(secret, REDACTED);
            }
        }
        said
    }

    /// The question whether events may be sent: its header.
    pub fn write_question(&self, handshake: &HandshakeSpec) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(http::header::USER_AGENT, super::request::USER_AGENT);
        append_origin(&mut headers, handshake);
        if let Some(rate) = handshake.rate {
            headers.insert(HeaderName::from_static("webhook-request-rate"), HeaderValue::from(rate.get()));
        }
        headers
    }
}

fn append_origin(headers: &mut HeaderMap, handshake: &HandshakeSpec) {
    // Checked when it was declared; one that is no header value is nobody's name.
    if let Ok(value) = HeaderValue::from_str(&handshake.origin) {
        headers.insert(REQUEST_ORIGIN, value);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_schemas::webhook::{Verifier, VerifyingKey};
    use tidegate_schemas::{Event, Limits};

    use super::*;

    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const TOKEN: &str = "Bearer hush-hush";

    fn target() -> (Target, RequestSpec) {
        let text = "{apiVersion: tidegate.dev/v1, kind: Subscription, metadata: {name: s}, spec: {topics: [t], \
                    sink: 'https://h/', signing: {secrets: ['${env:KEY}']}, headers: {authorization: '${env:TOKEN}'}, \
                    handshake: {origin: events.example.com, rate: 60}}}";
        let variables = |name: &str| Some(if name == "KEY" { KEY } else { TOKEN }.to_owned());
        let resources = resources::parse("f.yaml", text, &variables).unwrap();
        let subscription = &resources.subscriptions[0];
        let target = Target::declared(&subscription.sink, &subscription.request).unwrap();
        let handshake = HandshakeSpec { origin: "events.example.com".to_owned(), rate: 60.try_into().ok() };
        (target, RequestSpec { handshake: Some(handshake), ..RequestSpec::default() })
    }

    #[test]
    fn a_signed_request_is_structured_and_verifies() {
        let (target, request) = target();
        let event = Event::builder("1", "/shop", "order.placed").build().unwrap();
        let attempt = Attempt { subscription: "0a", event: &event, number: 1 };
        let now = 1_792_567_600;
        let (headers, body) = target.write(&attempt, &request, now);
        let verifier = Verifier::new(vec![VerifyingKey::parse(KEY).unwrap()]);
        assert_eq!(verifier.verify(&headers, &body, now), Ok(()));
        let read = binding::read(&headers, body, &Limits::default()).unwrap();
        assert!(matches!(read, binding::Message::Event(read) if read == event));
        assert!(!headers.contains_key("ce-id"), "nothing of the event stands outside of what is signed");
        assert_eq!(headers["authorization"], TOKEN);
        assert_eq!(headers["webhook-request-origin"], "events.example.com");
        let question = target.write_question(request.handshake.as_ref().unwrap());
        assert_eq!(question["webhook-request-rate"], "60");
        assert_eq!(question["authorization"], TOKEN);
        // The same key for each attempt, and a new timestamp.
        let (again, _) = target.write(&Attempt { number: 2, ..attempt }, &request, now + 60);
        assert_eq!(again["webhook-id"], headers["webhook-id"]);
        assert_ne!(again["webhook-timestamp"], headers["webhook-timestamp"]);
        assert_eq!(
            target.redact("unknown token hush-hush, sent Bearer hush-hush"),
            "unknown token [redacted], sent Bearer [redacted]"
        );
        let shown = format!("{target:?} {headers:?} {question:?}");
        assert!(!shown.contains("hush") && !shown.contains("MfKQ"), "{shown}");
    }

    #[test]
    fn a_target_without_its_file_sends_nothing() {
        let text = "{apiVersion: tidegate.dev/v1, kind: Subscription, metadata: {name: s}, spec: {topics: [t], sink: 'http://h/'}}";
        let declared = resources::parse("f.yaml", text, &|_| None).unwrap();
        let plain = Target::declared(&declared.subscriptions[0].sink, &declared.subscriptions[0].request).unwrap();
        let event = Event::builder("1", "/shop", "order.placed").build().unwrap();
        let attempt = Attempt { subscription: "0a", event: &event, number: 1 };
        let (headers, _) = plain.write(&attempt, &RequestSpec::default(), 0);
        assert!(headers.contains_key("ce-id") && !headers.contains_key("webhook-signature"));
        for request in [
            RequestSpec { signatures: vec!["v1".to_owned()], ..RequestSpec::default() },
            RequestSpec { headers: vec!["authorization".to_owned()], ..RequestSpec::default() },
            RequestSpec { ca: Some("ca.pem".to_owned()), ..RequestSpec::default() },
        ] {
            assert!(request.needs_its_file(), "{request:?}");
        }
    }
}
