//! The server of the tests: it records what it is asked and answers from a list.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tidegate_backbone::Environment;
use tokio::net::TcpListener;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Recorded {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A header and a whole body.
    Whole { status: u16, headers: Vec<(&'static str, String)>, body: String },
    /// A stream that, after these pieces, ends, breaks, or stays open.
    Stream { pieces: Vec<String>, after: After, position: Option<&'static str> },
    /// The request is read, and then the connection is closed.
    Break,
}

/// What a stream does after its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    End,
    Break,
    Stay,
}

impl Answer {
    pub(crate) fn json(status: u16, body: impl ToString) -> Self {
        Self::Whole { status, headers: vec![("content-type", "application/json".into())], body: body.to_string() }
    }

    pub(crate) fn problem(status: u16, body: impl ToString) -> Self {
        let headers = vec![("content-type", "application/problem+json".into())];
        Self::Whole { status, headers, body: body.to_string() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Whole { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }

    pub(crate) fn stream(pieces: &[&str], after: After) -> Self {
        Self::Stream { pieces: pieces.iter().map(ToString::to_string).collect(), after, position: None }
    }
}

/// A server on a free port of the loopback address.
pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Recorded>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    environment: Environment,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.environment.stopping().cancel();
    }
}

impl Server {
    /// A server that gives these answers in turn, and 599 after the last.
    pub(crate) async fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            requests: Arc::default(),
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            environment: Environment::system(),
        };
        let (requests, answers) = (Arc::clone(&server.requests), Arc::clone(&server.answers));
        let environment = server.environment.clone();
        server.environment.spawn(async move {
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (requests, answers) = (Arc::clone(&requests), Arc::clone(&answers));
                    let service =
                        service_fn(move |request| answer(request, Arc::clone(&requests), Arc::clone(&answers)));
                    environment.spawn(async move {
                        let builder = hyper::server::conn::http1::Builder::new();
                        // A broken connection is what some of the answers are about.
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            };
            tokio::select! {
                () = accept => {}
                () = environment.stopping().cancelled() => {}
            }
        });
        server
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().clone()
    }

    /// Method and path of what was asked so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.line).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    requests: Arc<Mutex<Vec<Recorded>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
) -> Result<Response<UnsyncBoxBody<Bytes, io::Error>>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    requests.lock().push(Recorded {
        line: format!("{} {}", parts.method, parts.uri),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let answer = answers.lock().pop_front();
    let full = |text: String| Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed_unsync();
    match answer {
        None => {
            let mut response = Response::new(full("no answer is left".to_owned()));
            *response.status_mut() = StatusCode::from_u16(599).unwrap();
            Ok(response)
        }
        Some(Answer::Break) => Err(io::Error::other("closed by the test")),
        Some(Answer::Whole { status, headers, body }) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(full(body)).unwrap())
        }
        Some(Answer::Stream { pieces, after, position }) => {
            let pieces = stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from(piece)))));
            let end = match after {
                After::End => stream::empty().boxed(),
                After::Break => stream::once(async {
                    // The pieces before are to arrive before the connection is gone.
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    Err(io::Error::other("broken by the test"))
                })
                .boxed(),
                After::Stay => stream::pending().boxed(),
            };
            let body = StreamBody::new(pieces.chain(end)).boxed_unsync();
            let mut response = Response::builder().header("content-type", "text/event-stream");
            if let Some(position) = position {
                response = response.header("tidegate-position", position);
            }
            Ok(response.body(body).unwrap())
        }
    }
}
