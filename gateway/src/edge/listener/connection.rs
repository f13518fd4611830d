use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tidegate_schemas::limits;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::debug;

use super::admission::Permit;
use super::exchange::Exchange;
use super::pulse::{Pulse, Verdict};
use super::stall;
use super::transport::Transport;
use super::{Common, Limits, Peers};

/// How long an idle HTTP/2 client may take to read that its connection ends.
const GOAWAY_GRACE: Duration = Duration::from_secs(1);
/// The parser's own bound lies beyond the limit, so that the limit itself is told by a problem.
const PARSER_SLACK_BYTES: usize = 16 * 1024;
/// The figure's label of an HTTP/2 stream that was reset because its client left the answer unread.
const UNREAD_STREAM: &str = "unread-stream";

/// Starts the tasks of HTTP/2 streams, and ends them with their connection's listener.
#[derive(Clone)]
struct Streams {
    common: Arc<Common>,
    cut: CancellationToken,
}

impl fmt::Debug for Streams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Streams")
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let (common, cut) = (Arc::clone(&self.common), self.cut.clone());
        self.common.environment.spawn(async move {
            let patience = || common.options.limits.patience(common.memory_is_short());
            // Boxed, so that the task is not as large as twice the stream.
            let stream = Box::pin(stall::run(stream, patience));
            if cut.run_until_cancelled(stream).await == Some(false) {
                common.metrics.connection_refused(UNREAD_STREAM);
            }
        });
    }
}

fn builder(limits: &Limits, streams: Streams) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(streams);
    let mut http1 = builder.http1();
    // The time for a header is the watch's, because the parser's also counts while a connection merely rests.
    http1.header_read_timeout(None).max_buf_size(limits.header_bytes + PARSER_SLACK_BYTES);
    if limits.header_fields != limits::REQUEST_HEADERS {
        // The parser's default is the product's, and only the default needs no allocation for each request.
        http1.max_headers(limits.header_fields);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::HTTP2_STREAMS)
        .max_pending_accept_reset_streams(limits::HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(limits::HTTP2_FAULTY_STREAMS)
        .max_frame_size(limits::HTTP2_FRAME_BYTES)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(limits::HTTP2_SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.ping.0)
        .keep_alive_timeout(limits.ping.1);
    builder
}

/// Serves one connection to its end.
pub(super) async fn run<S>(stream: TcpStream, remote: SocketAddr, permit: Permit, service: S, common: Arc<Common>)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    // Either fails only where the client has left already.
    let Ok(local) = stream.local_addr() else { return };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let pulse = Pulse::new();
    let cut = common.cut.child_token();
    let streams = Streams { common: Arc::clone(&common), cut: cut.clone() };
    let builder = builder(&common.options.limits, streams);
    let exchange =
        Exchange { service, peers: Peers { remote, local }, pulse: Arc::clone(&pulse), common: Arc::clone(&common) };
    let transport = TokioIo::new(Transport::new(stream, Arc::clone(&pulse), Arc::clone(&common), permit));
    let mut connection = pin!(builder.serve_connection_with_upgrades(transport, exchange));
    let mut watch = pin!(watch(&pulse, &common));

    let verdict = tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                debug!(%remote, %error, "a connection ended in an error");
            }
            return;
        }
        () = cut.cancelled() => return,
        verdict = watch.as_mut() => Some(verdict),
        () = common.drain.cancelled() => None,
    };
    connection.as_mut().graceful_shutdown();
    let Some(verdict) = verdict else {
        // In flight requests end; the watch goes on, so that half a request does not hold the shutdown up.
        tokio::select! {
            _ = connection.as_mut() => {}
            () = cut.cancelled() => {}
            _ = watch => {}
        }
        cut.cancel();
        return;
    };
    common.metrics.connection_refused(verdict.name());
    debug!(%remote, reason = verdict.name(), "a connection is closed");
    if verdict == Verdict::Idle {
        tokio::select! {
            _ = connection => {}
            () = cut.cancelled() => {}
            () = tokio::time::sleep(GOAWAY_GRACE) => {}
        }
    }
    // Its streams go with it.
    cut.cancel();
}

async fn watch(pulse: &Pulse, common: &Common) -> Verdict {
    let mut looked_again = false;
    loop {
        match pulse.judge(&common.options.limits, common.memory_is_short()) {
            Ok(next) => {
                looked_again = false;
                tokio::time::sleep_until(next).await;
            }
            // Where the whole process was late, a request may have come in time and only wait to be read.
            Err(Verdict::Idle) if !looked_again => {
                looked_again = true;
                tokio::task::yield_now().await;
            }
            Err(verdict) => return verdict,
        }
    }
}
