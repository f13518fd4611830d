use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use tidegate_schemas::limits;

use crate::edge::problem::Problem;

/// The pace that a request's body must keep.
#[derive(Clone, Copy, Debug)]
pub struct BodyPace {
    /// How far a body may fall behind.
    pub grace: Duration,
    /// What it must send on average beyond that.
    pub bytes_per_second: u64,
}

/// What one listener takes. The defaults are the product's.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// Open connections of one client address (an IPv6 client is its /64 network).
    pub connections_per_address: usize,
    /// From the opening of a connection, or the first byte of a request, to the end of its header.
    pub header_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// How far a client may fall behind in reading what it was sent.
    pub write_timeout: Duration,
    /// The pace at which it must read on average beyond that.
    pub answer_bytes_per_second: u64,
    /// Requests of one client address that wait for their answer.
    pub requests_in_flight_per_client: usize,
    /// Requests of one client address in a second; none where there is no limit.
    pub requests_per_second_per_client: Option<u32>,
    /// The header block of a request.
    pub header_bytes: usize,
    /// Header fields of a request.
    pub header_fields: usize,
    /// The body of a request; none where messages are bounded one by one.
    pub body_bytes: Option<usize>,
    /// The pace of a body; none where a body is a stream that may rest.
    pub body_pace: Option<BodyPace>,
    /// HTTP/2: after how long a silent connection is asked for a sign of life, and how long that may take.
    pub ping: (Duration, Duration),
    /// What connections may take to end when the environment stops.
    pub shutdown_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS,
            connections_per_address: limits::CONNECTIONS_PER_ADDRESS,
            header_timeout: limits::HEADER_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            write_timeout: limits::WRITE_TIMEOUT,
            answer_bytes_per_second: limits::ANSWER_BYTES_PER_SECOND,
            requests_in_flight_per_client: limits::REQUESTS_IN_FLIGHT_PER_CLIENT,
            requests_per_second_per_client: None,
            header_bytes: limits::REQUEST_HEADERS_BYTES,
            header_fields: limits::REQUEST_HEADERS,
            body_bytes: Some(limits::REQUEST_BODY_BYTES),
            body_pace: Some(BodyPace { grace: limits::BODY_GRACE, bytes_per_second: limits::BODY_BYTES_PER_SECOND }),
            ping: (limits::HTTP2_PING_INTERVAL, limits::HTTP2_PING_TIMEOUT),
            shutdown_grace: limits::SHUTDOWN_GRACE,
        }
    }
}

impl Limits {
    /// How long a client may leave bytes unread, by whether memory is short.
    pub(super) fn patience(&self, short: bool) -> Duration {
        if short { self.write_timeout.min(limits::WRITE_TIMEOUT_SHORT) } else { self.write_timeout }
    }
}

/// Says a problem in the words of the protocol that the path belongs to.
pub type Shape = fn(path: &str, problem: Problem) -> Response;

/// The shape of the native API, whatever the path is.
pub fn native(_path: &str, problem: Problem) -> Response {
    problem.into_response()
}

/// How a listener behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it takes.
    pub limits: Limits,
    /// How it says no, and how problems that handlers leave in a response's extensions are written.
    pub shape: Shape,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), shape: native }
    }
}
