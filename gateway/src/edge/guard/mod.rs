//! Who may talk to the gateway at all, and in which form.
//!
//! A web page that a developer happens to visit can send requests to loopback, directly or by making its own name resolve
//! there (DNS rebinding). [`Guarded`] refuses both by `Host` and `Origin`. It also gives the path its one canonical form
//! ([`path`]) before anything looks at it, so that what is checked is what is dispatched.

mod authority;
pub mod path;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::Either;
use http::request::Parts;
use http::{Method, StatusCode, Uri, header};
use tower::Service;

use crate::edge::listener::Peers;
use crate::edge::problem::{Code, Problem};

use authority::Host;

/// Which hosts and origins are not foreign. Loopback names and addresses never are, nor is the address on which a
/// connection was taken.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    names: Arc<[String]>,
}

impl Guard {
    /// A guard that lets these further host names pass (without port, any case), as `Host` and as the host of an `Origin`.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect() }
    }

    /// Puts the guard before a service.
    pub fn protect<S>(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }

    /// Checks a request and gives its path the canonical form; the decoded one is left in its extensions
    /// ([`path::Canonical`]).
    pub fn check(&self, parts: &mut Parts) -> Result<(), Problem> {
        if parts.method == Method::CONNECT || parts.uri.path() == "*" {
            return Err(Problem::new(Code::MalformedRequest, "The request has no path; this gateway is not a proxy."));
        }
        let local = parts.extensions.get::<Peers>().map(|peers| peers.local.ip());
        self.check_host(parts, local)?;
        self.check_origin(parts, local)?;
        let canonical = path::Canonical::parse(parts.uri.path())
            .map_err(|reason| Problem::new(Code::AmbiguousPath, format!("The path {reason}.")))?;
        if canonical.as_str() != parts.uri.path() {
            parts.uri = with_path(&parts.uri, canonical.as_str())?;
        }
        parts.extensions.insert(canonical);
        Ok(())
    }

    fn check_host(&self, parts: &Parts, local: Option<std::net::IpAddr>) -> Result<(), Problem> {
        let invalid = |detail: &str| Problem::new(Code::InvalidHost, detail);
        let mut fields = parts.headers.get_all(header::HOST).iter();
        let field = fields.next();
        if fields.next().is_some() {
            return Err(invalid("The request has more than one Host header."));
        }
        let field = match field.map(|value| value.to_str()) {
            None => None,
            Some(Ok(text)) => Some(Host::parse(text).ok_or_else(|| invalid("The Host header is not host:port."))?),
            Some(Err(_)) => return Err(invalid("The Host header is not text.")),
        };
        let target = match parts.uri.authority() {
            None => None,
            Some(authority) => {
                let host = Host::parse(authority.as_str());
                Some(host.ok_or_else(|| invalid("The authority of the request target is not host:port."))?)
            }
        };
        let host = match (target, field) {
            (Some(target), Some(field)) if target != field => {
                return Err(invalid("The Host header and the authority of the request target differ."));
            }
            // HTTP/1.1 demands the field even beside an absolute target; HTTP/2 has :authority in its place.
            (Some(_), None) if parts.version == http::Version::HTTP_11 => {
                return Err(invalid("The request has no Host header."));
            }
            (Some(host), _) | (None, Some(host)) => host,
            // No browser speaks HTTP/1.0, so such a client is no web page.
            (None, None) if parts.version == http::Version::HTTP_10 => return Ok(()),
            (None, None) => return Err(invalid("The request has no Host header.")),
        };
        if host.is_known(&self.names, local) {
            return Ok(());
        }
        let detail = format!("The host {host} is neither loopback nor among the allowed names of this listener.");
        Err(Problem::new(Code::ForeignHost, detail))
    }

    fn check_origin(&self, parts: &Parts, local: Option<std::net::IpAddr>) -> Result<(), Problem> {
        let foreign = |detail: String| Problem::new(Code::ForeignOrigin, detail);
        let mut fields = parts.headers.get_all(header::ORIGIN).iter();
        let Some(field) = fields.next() else { return check_fetch_site(parts) };
        if fields.next().is_some() {
            return Err(foreign("The request has more than one Origin header.".to_owned()));
        }
        let origin = field.to_str().unwrap_or("(not text)");
        let host = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"))
            .and_then(Host::parse)
            .filter(|host| host.is_known(&self.names, local));
        match host {
            Some(_) => Ok(()),
            None => Err(foreign(format!(
                "The origin {origin:?} is neither loopback nor among the allowed names of this listener."
            ))),
        }
    }
}

/// Browsers send no `Origin` with a GET that a page embeds as an image or script, but they say that it crosses sites.
/// Following a link is let pass: the user did that.
fn check_fetch_site(parts: &Parts) -> Result<(), Problem> {
    let is = |name: &str, value: &str| parts.headers.get(name).is_some_and(|field| field == value);
    if is("sec-fetch-site", "cross-site") && !is("sec-fetch-mode", "navigate") {
        let detail = "A web page of another site embeds this request.";
        return Err(Problem::new(Code::ForeignOrigin, detail));
    }
    Ok(())
}

fn with_path(uri: &Uri, path: &str) -> Result<Uri, Problem> {
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    let malformed = |_| Problem::new(Code::MalformedRequest, "The request target cannot be read.");
    parts.path_and_query = Some(path_and_query.parse().map_err(malformed)?);
    Uri::from_parts(parts).map_err(|_| Problem::new(Code::MalformedRequest, "The request target cannot be read."))
}

/// A service behind the guard.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        match self.guard.check(&mut parts) {
            Ok(()) => Either::Left(self.inner.call(Request::from_parts(parts, body))),
            Err(problem) => Either::Right(ready(Ok(problem.into_response()))),
        }
    }
}

/// The route template that a request matched, which a response carries for the figures.
#[derive(Clone, Debug)]
pub struct Route(pub MatchedPath);

/// Completes a router: an unknown path and a wrong method are problems, and every response says which route gave it. To be
/// called when all routes are there.
pub fn complete(router: Router) -> Router {
    router
        .fallback(|uri: Uri| async move {
            Problem::new(Code::NotFound, format!("There is nothing at {}.", uri.path())).into_response()
        })
        .layer(from_fn(finish))
}

async fn finish(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let mut response = next.run(request).await;
    // A handler that answers 405 by itself has said why; the router's own answer has no body.
    let unexplained = response.extensions().get::<Problem>().is_none()
        && !response.headers().contains_key(header::CONTENT_TYPE)
        && response.status() == StatusCode::METHOD_NOT_ALLOWED;
    if unexplained {
        let mut problem = Problem::new(Code::MethodNotAllowed, format!("The path does not have {method}."));
        if let Some(allow) = response.headers().get(header::ALLOW) {
            problem = problem.with_allow(allow.clone());
        }
        response = problem.into_response();
    }
    if let Some(route) = route {
        response.extensions_mut().insert(Route(route));
    }
    response
}

#[cfg(test)]
mod tests;
