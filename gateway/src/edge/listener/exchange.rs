use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode, Version, header};
use hyper::body::Incoming;
use tidegate_backbone::budget::{Account, Exhausted};
use tidegate_schemas::limits;
use tower::{Service, ServiceExt as _};

use crate::edge::guard::Route;
use crate::edge::problem::{Code, Problem};

use super::body::{Answer, Bounded, Counted};
use super::clients::{Clients, Place};
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
        let declared = declared_bytes(&parts);
        let admitted = if http1 && lengths == Lengths::Both {
            Err(Problem::new(Code::AmbiguousFraming, "The request has both Content-Length and Transfer-Encoding."))
        } else {
            self.admit(&parts, declared)
        };
        let refused = admitted.is_err();
        let uri = parts.uri.clone();
        let method = parts.method.clone();
        // Bodies of streams that rest are bounded message by message, by whoever reads those.
        let memory = limits.body_bytes.map(|_| Counted::new(&self.common.environment.memory));
        let body = Bounded::new(body, limits, memory.clone(), Arc::clone(&self.pulse));
        let answer = admitted.map(|place| {
            let answer = self.service.clone().oneshot(Request::from_parts(parts, Body::new(body)));
            (answer, place)
        });
        let common = Arc::clone(&self.common);
        let pulse = Arc::clone(&self.pulse);
        Box::pin(async move {
            let mut response = match answer {
                Ok((answer, place)) => {
                    let response = answer.await?;
                    drop((place, memory));
                    response
                }
                Err(problem) => (common.options.shape)(uri.path(), problem),
            };
            if let Some(problem) = response.extensions_mut().remove::<Problem>().filter(|_| !refused) {
                response = shaped(response, problem, uri.path(), &common);
            }
            let mut response = match finish(response, &common, in_flight) {
                Ok(response) => response,
                Err((problem, in_flight)) => told(&common, uri.path(), problem, in_flight),
            };
            let route = response.extensions().get::<Route>();
            let route = route.map_or(NO_ROUTE, |route| route.0.as_str());
            common.metrics.http_request(route, &method, response.status());
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                pulse.upgraded();
            }
            // A body that was given up half-way is not read to its end to find the next request behind it; the parser
            // finds it by itself where all of it has come along with the header.
            let given_up = matches!(response.status(), StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE)
                || (pulse.has_unread() && declared.is_none_or(|declared| declared > limits::BODY_ALONG_BYTES as u64));
            if http1 {
                if refused_for_good(&response, refused) || unclear || given_up {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                pulse.answered();
            }
            Ok(response)
        })
    }
}

impl<S> Exchange<S> {
    /// A place for the request, where neither its header nor what its client and all others have out stands against it.
    fn admit(&self, parts: &Parts, declared: Option<u64>) -> Result<Place, Problem> {
        let limits = &self.common.options.limits;
        refuse(parts, limits, declared)?;
        let now = self.common.environment.clock.since_boot();
        let place = Clients::admit(&self.common.clients, self.peers.remote.ip(), now)?;
        if let (Some(declared), Some(_)) = (declared.filter(|bytes| *bytes > 0), limits.body_bytes) {
            let bytes = usize::try_from(declared).unwrap_or(usize::MAX);
            self.common.environment.memory.check(Account::Bodies, bytes).map_err(|exhausted| no_memory(&exhausted))?;
        }
        Ok(place)
    }
}

/// Whether the connection ends with a refusal: the client's next request may be of use where it was only too early.
fn refused_for_good(response: &http::Response<Answer>, refused: bool) -> bool {
    refused && !matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// The problem of a request, or of a message of another protocol, that there is no memory for.
pub(in crate::edge) fn no_memory(exhausted: &Exhausted) -> Problem {
    let detail = format!("The gateway has no memory for the request: {exhausted}.");
    Problem::new(Code::Overloaded, detail).with_retry_after(limits::MEMORY_RETRY_AFTER)
}

/// A handler's problem in the words of the path's protocol.
fn shaped(mut response: Response, problem: Problem, path: &str, common: &Common) -> Response {
    let route = response.extensions_mut().remove::<Route>();
    // The router adds what it allows only after the problem was made.
    let allow = response.headers_mut().remove(http::header::ALLOW);
    let mut response = (common.options.shape)(path, problem);
    if let Some(allow) = allow {
        response.headers_mut().insert(http::header::ALLOW, allow);
    }
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

fn finish(
    response: Response,
    common: &Common,
    in_flight: InFlight,
) -> Result<http::Response<Answer>, (Problem, InFlight)> {
    let (parts, body) = response.into_parts();
    match Answer::new(body, &common.environment.memory, in_flight) {
        Ok(answer) => Ok(http::Response::from_parts(parts, answer)),
        Err((exhausted, in_flight)) => Err((no_memory(&exhausted), in_flight)),
    }
}

/// A problem in place of an answer for which there is no memory; it is small enough to be always taken.
fn told(common: &Common, path: &str, problem: Problem, in_flight: InFlight) -> http::Response<Answer> {
    let response = (common.options.shape)(path, problem);
    finish(response, common, in_flight).unwrap_or_else(|(_, in_flight)| {
        let empty = Answer::new(Body::empty(), &common.environment.memory, in_flight);
        let answer = empty.unwrap_or_else(|_| unreachable!("an empty answer takes no memory"));
        let mut response = http::Response::new(answer);
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
}

/// What the client says of the length of its body.
fn declared_bytes(parts: &Parts) -> Option<u64> {
    parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
}

/// Refuses by looking at the header alone.
fn refuse(parts: &Parts, limits: &Limits, declared: Option<u64>) -> Result<(), Problem> {
    if parts.headers.len() > limits.header_fields {
        let detail = format!("The request has more than {} header fields.", limits.header_fields);
        return Err(Problem::new(Code::HeadersTooLarge, detail));
    }
    // As HTTP/1.1 writes them: name, colon, space, value, line end.
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if fields + target > limits.header_bytes {
        let detail = format!("The request's header has more than {} bytes.", limits.header_bytes);
        return Err(Problem::new(Code::HeadersTooLarge, detail));
    }
    let limit = limits.body_bytes.unwrap_or(usize::MAX);
    match declared.filter(|declared| *declared > limit as u64) {
        None => Ok(()),
        Some(declared) => {
            let detail = format!("The body has {declared} bytes; the limit is {limit}.");
            Err(Problem::new(Code::BodyTooLarge, detail))
        }
    }
}
