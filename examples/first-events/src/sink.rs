//! The web server that receives deliveries, notes each, and misbehaves as told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use crate::Failure;
use crate::events::{Identity, decode};

/// How an event is answered on the path `/everything`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// 204.
    Accepts,
    /// 503 for the first two attempts.
    FailsTwice,
    /// 400 until the sink is mended.
    BlamesTheEvent,
}

/// What happened to one event on one path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// What was answered, in order.
    pub(crate) statuses: Vec<u16>,
    /// `tidegate-attempt` of each request.
    pub(crate) attempts: Vec<u32>,
    /// The data of the last request.
    pub(crate) data: Bytes,
}

impl Seen {
    /// Whether it was accepted.
    pub(crate) fn arrived(&self) -> bool {
        self.statuses.last() == Some(&204)
    }
}

/// The server.
#[derive(Clone, Debug)]
pub(crate) struct Sink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    moods: HashMap<Identity, Mood>,
    state: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    mended: bool,
    seen: HashMap<(String, Identity), Seen>,
}

impl Sink {
    /// Starts it; gives where it listens.
    pub(crate) async fn start(
        address: SocketAddr,
        moods: HashMap<Identity, Mood>,
    ) -> Result<(Self, SocketAddr), Failure> {
        let sink = Self(Arc::new(Inner { moods, state: Mutex::default() }));
        let routes = Router::new().route("/{path}", post(receive)).with_state(sink.clone());
        let listener = tokio::net::TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok((sink, address))
    }

    /// From now on every event is accepted.
    pub(crate) fn mend(&self) {
        self.0.state.lock().mended = true;
    }

    /// What each event met on that path.
    pub(crate) fn seen(&self, path: &str) -> HashMap<Identity, Seen> {
        let state = self.0.state.lock();
        let on_path = state.seen.iter().filter(|((on, _), _)| on == path);
        on_path.map(|((_, identity), seen)| (identity.clone(), seen.clone())).collect()
    }

    /// How many events have arrived on that path.
    pub(crate) fn arrived(&self, path: &str) -> usize {
        self.seen(path).values().filter(|seen| seen.arrived()).count()
    }
}

async fn receive(
    State(sink): State<Sink>,
    Path(path): Path<String>,
    headers: HeaderMap,
    data: Bytes,
) -> (StatusCode, String) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(decode).unwrap_or_default();
    let identity = (header("ce-source"), header("ce-id"));
    let mut state = sink.0.state.lock();
    let mended = state.mended;
    let seen = state.seen.entry((path.clone(), identity.clone())).or_default();
    let mood = if path == "everything" && !mended { sink.0.moods.get(&identity) } else { None };
    let (status, said) = match mood {
        Some(Mood::BlamesTheEvent) => (StatusCode::BAD_REQUEST, format!("cannot understand {}", header("ce-type"))),
        Some(Mood::FailsTwice) if seen.statuses.len() < 2 => (StatusCode::SERVICE_UNAVAILABLE, "come again".to_owned()),
        _ => (StatusCode::NO_CONTENT, String::new()),
    };
    seen.statuses.push(status.as_u16());
    seen.attempts.push(header("tidegate-attempt").parse().unwrap_or_default());
    seen.data = data;
    (status, said)
}
