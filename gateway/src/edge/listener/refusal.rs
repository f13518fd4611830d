use std::time::Duration;

use bytes::Bytes;
use tidegate_schemas::limits;
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
    let detail = "Close connections that are not used, or try again later.";
    let whole = whole(&Problem::new(Code::TooManyConnections, detail).with_retry_after(RETRY_AFTER));
    let linger = async {
        stream.write_all(&whole).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES as u64), &mut tokio::io::sink()).await
    };
    // Whether the client took it is its own affair.
    let _ = tokio::time::timeout(LINGER, linger).await;
}

/// An answer of HTTP/1.1 that ends its connection.
fn whole(problem: &Problem) -> Bytes {
    let document = problem.document();
    let mut text = format!(
        "HTTP/1.1 {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n",
        problem.code().status(),
        document.len(),
    )
    .into_bytes();
    if let Some(wait) = problem.retry_after() {
        text.extend_from_slice(format!("retry-after: {}\r\n", wait.as_secs().max(1)).as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&document);
    text.into()
}

/// The refusal with its document, where these bytes are a refusal that the parser wrote by itself: a head that says that
/// there is no body, and nothing else. The caller knows that no answer of a handler is due.
pub(super) fn of_parser(bytes: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(bytes).ok()?;
    let head = text.strip_suffix("\r\n\r\n")?;
    let (line, fields) = head.split_once("\r\n")?;
    let plain = |field: &str| {
        let name = field.split(':').next().unwrap_or_default();
        field == "content-length: 0" || matches!(name, "connection" | "date")
    };
    if !fields.split("\r\n").all(plain) {
        return None;
    }
    let status = line.split(' ').nth(1)?;
    let problem = match status {
        "431" | "414" => {
            let detail = format!(
                "The request's header has more than {} fields or {} bytes.",
                limits::REQUEST_HEADERS,
                limits::REQUEST_HEADERS_BYTES
            );
            Problem::new(Code::HeadersTooLarge, detail)
        }
        "400" => Problem::new(
            Code::MalformedRequest,
            "This is no request as RFC 9112 writes them: its first line, a field or the length of its body cannot be read, or \
             can be read in two ways.",
        ),
        _ => return None,
    };
    Some(whole(&problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_parser_writes_is_replaced() {
        let check = |head: &str, code: Option<&str>| {
            let found = of_parser(head.as_bytes()).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
            assert_eq!(found.is_some(), code.is_some(), "{head:?}: {found:?}");
            if let (Some(found), Some(code)) = (found, code) {
                let (head, body) = found.split_once("\r\n\r\n").unwrap();
                assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
                assert!(body.contains(&format!("\"code\":\"{code}\"")), "{body}");
            }
        };
        let own = "content-length: 0\r\nconnection: close\r\ndate: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\n";
        check(&format!("HTTP/1.1 400 Bad Request\r\n{own}"), Some("malformed-request"));
        check(&format!("HTTP/1.1 431 Request Header Fields Too Large\r\n{own}"), Some("headers-too-large"));
        check(&format!("HTTP/1.1 414 URI Too Long\r\n{own}"), Some("headers-too-large"));
        check(&format!("HTTP/1.1 404 Not Found\r\n{own}"), None);
        check("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n", None);
        check("HTTP/1.1 400 Bad Request\r\nx-app: 1\r\ncontent-length: 0\r\n\r\n", None);
        check("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", None);
        check("HTTP/1.1 100 Continue\r\n\r\n", None);
    }
}
