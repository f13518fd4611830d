//! What is answered while the gateway starts: that it lives, and why it is not ready.
//!
//! Whatever else is asked waits for a moment, because opening mostly takes no longer, and is then told to come again.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::future::RouteFuture;
use futures_util::future::Either;
use http::Method;
use parking_lot::Mutex;
use tidegate_backbone::BoxFuture;
use tidegate_schemas::limits;
use tokio::sync::watch;
use tower::Service;

use crate::edge::problem::{Code, Problem};

/// What clients are told to wait that come before everything is open.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A gateway that is not open yet. Clones are of the same gateway.
#[derive(Clone, Debug)]
pub struct Startup(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    whole: watch::Sender<Option<Router>>,
    /// What it does or waits for at the moment.
    does: Mutex<String>,
}

impl Default for Startup {
    fn default() -> Self {
        let does = Mutex::new("opens the backbone".to_owned());
        Self(Arc::new(Inner { whole: watch::Sender::new(None), does }))
    }
}

impl Startup {
    /// Tells those who ask whether the gateway is ready what it does: a sentence about it, without subject and stop.
    pub fn does(&self, what: impl Into<String>) {
        *self.0.does.lock() = what.into();
    }

    /// Everything is open: requests are answered by this from now on.
    pub fn open(&self, router: Router) {
        self.0.whole.send_replace(Some(router));
    }

    /// What answers, before and after.
    pub fn service(&self) -> Doors {
        Doors { startup: self.clone(), whole: None }
    }

    fn not_ready(&self) -> Problem {
        let detail = format!("The gateway is starting: it {}.", self.0.does.lock());
        Problem::new(Code::Unavailable, detail).with_retry_after(RETRY_AFTER)
    }

    async fn answer(self, request: Request) -> Result<Response, Infallible> {
        let reads = [Method::GET, Method::HEAD].contains(request.method());
        match request.uri().path() {
            "/livez" if reads => return Ok("ok\n".into_response()),
            "/readyz" if reads => return Ok(self.not_ready().into_response()),
            _ => {}
        }
        let mut whole = self.0.whole.subscribe();
        let opened = tokio::time::timeout(limits::STARTUP_REQUEST_WAIT, whole.wait_for(Option::is_some)).await;
        let router = opened.ok().and_then(|opened| opened.ok()?.clone());
        match router {
            Some(mut router) => router.call(request).await,
            None => Ok(self.not_ready().into_response()),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Doors {
    startup: Startup,
    /// Known once it is open, so that no request has to look for it.
    whole: Option<Router>,
}

impl Service<Request> for Doors {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<RouteFuture<Infallible>, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if self.whole.is_none() {
            self.whole.clone_from(&self.startup.0.whole.borrow());
        }
        match &mut self.whole {
            Some(router) => Either::Left(router.call(request)),
            None => Either::Right(Box::pin(self.startup.clone().answer(request))),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use http::StatusCode;

    use super::*;

    async fn ask(doors: &Doors, path: &str) -> (StatusCode, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = doors.clone().call(request).await.unwrap();
        let status = response.status();
        (status, String::from_utf8(to_bytes(response.into_body(), 64 * 1024).await.unwrap().to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_starts_lives_and_says_what_it_waits_for() {
        let startup = Startup::default();
        let doors = startup.service();
        assert_eq!(ask(&doors, "/livez").await, (StatusCode::OK, "ok\n".to_owned()));
        assert!(ask(&doors, "/readyz").await.1.contains("it opens the backbone."));
        startup.does("waits for the broker at nats://h:4222: refused");
        let (status, text) = ask(&doors, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("waits for the broker at nats://h:4222: refused."), "{text}");
        let (status, text) = ask(&doors, "/topics").await;
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && text.contains("unavailable"), "{text}");
        // Whoever asks right before it opens is answered like those after.
        let early = doors.clone();
        let early = async move { ask(&early, "/topics").await };
        let opens = async {
            tokio::time::sleep(limits::STARTUP_REQUEST_WAIT / 2).await;
            startup.open(Router::new().route("/topics", get(|| async { "whole" })));
        };
        let (answer, ()) = tokio::join!(early, opens);
        assert_eq!(answer, (StatusCode::OK, "whole".to_owned()));
        assert_eq!(ask(&doors, "/topics").await, answer);
        assert_eq!(ask(&doors, "/livez").await.0, StatusCode::NOT_FOUND, "the whole answers by itself");
    }
}
