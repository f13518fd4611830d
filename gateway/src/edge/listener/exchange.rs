use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tower::{Service, ServiceExt as _};

use crate::edge::guard::Route;
use crate::edge::problem::{Code, Problem};

use super::body::{Answer, Bounded};
use super::pulse::{InFlight, Lengths, Pulse};
use super::{Common, Limits, Peers};

/// The figure's label where no route matched.
const NO_ROUTE: &str = "none";

/// One connection's requests on their way to the service.
pub(super) struct Exchange<S> {
    pub(super) service: S,
    pub(super) peers: Peers,
    pub(super) pulse: Arc<Pulse>,
    pub(super) common: Arc<Common>,
}

impl<S> hyper::service::Service<http::Request<Incoming>> for Exchange<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let (in_flight, lengths) = self.pulse.request();
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(self.peers);
        let limits = &self.common.options.limits;
        let http1 = parts.version < Version::HTTP_2;
        // What the parser left of the framing fields shows that there was a Transfer-Encoding at least.
        let unclear = http1 && lengths == Lengths::Unseen && parts.headers.contains_key(header::TRANSFER_ENCODING);
        let refusal = if http1 && lengths == Lengths::Both {
            Some(Problem::new(Code::AmbiguousFraming, "The request has both Content-Length and Transfer-Encoding."))
        } else {
            refuse(&parts, limits)
        };
        let refused = refusal.is_some();
        let uri = parts.uri.clone();
        let method = parts.method.clone();
        // A client that sends before it listens would only see a reset if its body met a closed socket. One that asked for
        // leave to send is answered at once.
        let lingers = http1
            && refusal.as_ref().is_some_and(|problem| problem.code() == Code::BodyTooLarge)
            && !parts.headers.contains_key(header::EXPECT);
        let mut unwanted = None;
        let answer = match refusal {
            Some(problem) => {
                let most = limits.body_bytes.map(|bytes| bytes.saturating_mul(2));
                unwanted = lingers.then(|| Bounded::new(body, most, limits.body_pace));
                Err(problem)
            }
            None => {
                let body = Body::new(Bounded::new(body, limits.body_bytes, limits.body_pace));
                Ok(self.service.clone().oneshot(Request::from_parts(parts, body)))
            }
        };
        let common = Arc::clone(&self.common);
        let pulse = Arc::clone(&self.pulse);
        Box::pin(async move {
            if let Some(mut body) = unwanted {
                let drained = async { while let Some(Ok(_)) = body.frame().await {} };
                let _ = tokio::time::timeout(tidegate_schemas::limits::REFUSED_BODY_TIMEOUT, drained).await;
            }
            let mut response = match answer {
                Ok(answer) => answer.await?,
                Err(problem) => (common.options.shape)(uri.path(), problem),
            };
            if let Some(problem) = response.extensions_mut().remove::<Problem>().filter(|_| !refused) {
                let route = response.extensions_mut().remove::<Route>();
                // The router adds what it allows only after the problem was made.
                let allow = response.headers_mut().remove(http::header::ALLOW);
                response = (common.options.shape)(uri.path(), problem);
                if let Some(allow) = allow {
                    response.headers_mut().insert(http::header::ALLOW, allow);
                }
                if let Some(route) = route {
                    response.extensions_mut().insert(route);
                }
            }
            let route = response.extensions().get::<Route>();
            let route = route.map_or(NO_ROUTE, |route| route.0.as_str());
            common.metrics.http_request(route, &method, response.status());
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                pulse.upgraded();
            }
            // A body that was given up half-way is not read to its end to find the next request behind it.
            let given_up = matches!(response.status(), StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE);
            if http1 && (refused || unclear || given_up) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(finish(response, in_flight))
        })
    }
}

fn finish(response: Response, in_flight: InFlight) -> http::Response<Answer> {
    response.map(|inner| Answer { inner, _in_flight: in_flight })
}

/// What is refused by looking at the header alone.
fn refuse(parts: &Parts, limits: &Limits) -> Option<Problem> {
    if parts.headers.len() > limits.header_fields {
        let detail = format!("The request has more than {} header fields.", limits.header_fields);
        return Some(Problem::new(Code::HeadersTooLarge, detail));
    }
    // As HTTP/1.1 writes them: name, colon, space, value, line end.
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if fields + target > limits.header_bytes {
        let detail = format!("The request's header has more than {} bytes.", limits.header_bytes);
        return Some(Problem::new(Code::HeadersTooLarge, detail));
    }
    let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let limit = limits.body_bytes?;
    declared.filter(|declared| *declared > limit as u64).map(|declared| {
        let detail = format!("The body has {declared} bytes; the limit is {limit}.");
        Problem::new(Code::BodyTooLarge, detail)
    })
}
