//! Follows the topic of a run and tells when its events arrive.

use http::{HeaderValue, Method, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tidegate_schemas::limits;

use super::{Run, record};
use crate::cli::client::api::{Api, Call};
use crate::cli::client::failure::Failure;
use tidegate_schemas::sse::Parser;

/// Opens the stream; what is published after this returns is in it.
pub(super) async fn open(api: &Api, topic: &str) -> Result<Response<Incoming>, Failure> {
    let call = Call::new(Method::GET, &["topics", topic, "events"])
        .query("from", "latest")
        .header(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    api.follow(call).await
}

/// Reads until the stream ends or breaks; events that are not seen are told in the result.
pub(super) async fn read(run: &Run, stream: Response<Incoming>) {
    let mut body = stream.into_body();
    let mut parser = Parser::new(limits::CLIENT_STREAM_EVENT_BYTES);
    let quoted = format!("\"id\":\"{}", run.prefix);
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(bytes) = frame.into_data() else { continue };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let Ok((taken, message)) = parser.feed(rest) else { return };
            rest = &rest[taken..];
            // The id is found without parsing: this must not slow what it measures.
            let number = message.as_ref().and_then(|message| {
                let (_, behind) = message.data.split_once(&quoted)?;
                behind.split('"').next()?.parse::<u64>().ok()
            });
            if let Some(number) = number {
                let mut measured = run.measured.lock();
                if let Some(began) = measured.unseen.remove(&number) {
                    record(&mut measured.end_to_end, began.elapsed());
                }
            }
        }
    }
}
