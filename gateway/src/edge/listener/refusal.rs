use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::edge::problem::{Code, Problem};

/// What a refused client may take to send its request and to read the answer.
const LINGER: Duration = Duration::from_secs(1);
/// What is read of that request.
const LINGER_BYTES: usize = 64 * 1024;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Answers 503 without reading the request, in HTTP/1.1; an HTTP/2 client sees a connection that is closed.
///
/// Closing while unread bytes wait makes the kernel reset the connection, which can destroy the answer on its way. So the
/// request is read and thrown away for a moment.
pub(super) async fn answer(mut stream: TcpStream) {
    let problem = Problem::new(Code::TooManyConnections, "Close connections that are not used, or try again later.");
    let body = problem.with_retry_after(RETRY_AFTER).document();
    let status = Code::TooManyConnections.status();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nretry-after: {}\r\n\
         connection: close\r\n\r\n",
        body.len(),
        RETRY_AFTER.as_secs(),
    );
    let linger = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES as u64), &mut tokio::io::sink()).await
    };
    // Whether the client took it is its own affair.
    let _ = tokio::time::timeout(LINGER, linger).await;
}
