//! `tail`: follows a topic, and goes on where it was when the connection breaks.

mod excerpt;

use std::time::Duration;

use http::{HeaderValue, Method, header};
use http_body_util::BodyExt as _;
use tidegate_schemas::limits;
use tidegate_schemas::sse::{self, Parser};

use super::api::Call;
use super::failure::Failure;
use super::problem::Problem;
use super::{Context, json};
use crate::cli::arguments::Tail;

/// Where the next page or stream begins, as the server says it.
const POSITION: &str = "tidegate-position";

/// How far the topic has been followed.
#[derive(Debug)]
struct Progress {
    /// The position of the last event.
    last_id: Option<String>,
    /// Where the stream began, for a connection that broke before its first event: `latest` would be later by now.
    begin: Option<String>,
    printed: u64,
    connected: bool,
}

/// Carries out `tail`. Ends well after the asked number of events, or when the environment stops (Ctrl-C).
pub(super) async fn run(context: &mut Context<'_>, arguments: &Tail) -> Result<(), Failure> {
    let stopping = context.environment.stopping().clone();
    let follow = async {
        let mut progress = Progress { last_id: None, begin: None, printed: 0, connected: false };
        let mut delay = limits::CLIENT_RECONNECT_INITIAL;
        loop {
            let before = progress.printed;
            let Err(failure) = follow(context, arguments, &mut progress).await else { return Ok(()) };
            if !progress.connected || !is_passing(&failure) {
                return Err(failure);
            }
            if progress.printed > before {
                delay = limits::CLIENT_RECONNECT_INITIAL;
            }
            let wait = jittered(delay, context.environment.random.bits());
            let reason = failure.lines(&context.globals.server()).swap_remove(0);
            context.console.note(&format!("{reason}; reconnecting in {} ms", wait.as_millis()));
            tokio::time::sleep(wait).await;
            delay = (delay * 2).min(limits::CLIENT_RECONNECT_MAX);
        }
    };
    tokio::select! {
        outcome = follow => outcome,
        () = stopping.cancelled() => Ok(()),
    }
}

/// Follows one connection. Ends well only when enough events were printed.
async fn follow(context: &mut Context<'_>, arguments: &Tail, progress: &mut Progress) -> Result<(), Failure> {
    let from = progress.begin.as_deref().unwrap_or(&arguments.from);
    let mut call = Call::new(Method::GET, &["topics", &arguments.topic, "events"])
        .query("from", from)
        .header(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    if let Some(partition) = arguments.partition {
        call = call.query("partition", &partition.to_string());
    }
    if let Some(filter) = &arguments.filter {
        call = call.query("filter", filter);
    }
    if let Some(last_id) = progress.last_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
        call = call.header(header::HeaderName::from_static("last-event-id"), last_id);
    }
    let response = context.api.follow(call).await?;
    let text_of = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if !text_of("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let reason = "the answer is no stream of events; is it a gateway that listens there?";
        return Err(Failure::Local(reason.to_owned()));
    }
    if progress.begin.is_none() {
        progress.begin = text_of(POSITION);
    }
    if progress.connected {
        context.console.hint("connected again");
    }
    progress.connected = true;

    let mut body = response.into_body();
    let mut parser = Parser::new(limits::CLIENT_STREAM_EVENT_BYTES);
    loop {
        let frame = tokio::time::timeout(limits::CLIENT_STREAM_SILENCE, body.frame()).await;
        let frame = match frame {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(Failure::NoAnswer(format!("the stream broke: {error}"))),
            Ok(None) => return Err(Failure::NoAnswer("the stream ended".to_owned())),
            Err(_) => {
                let silence = limits::CLIENT_STREAM_SILENCE.as_secs();
                return Err(Failure::NoAnswer(format!("the stream was silent for {silence} s")));
            }
        };
        let Ok(bytes) = frame.into_data() else { continue };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (taken, message) = parser.feed(rest).map_err(|error| Failure::Local(error.to_string()))?;
            rest = &rest[taken..];
            if let Some(message) = message {
                match message.kind.as_str() {
                    sse::PROBLEM => return Err(Failure::Refused(Box::new(Problem::of_text(&message.data)))),
                    sse::EVENT | "message" => print(context, &message.data)?,
                    // A kind of message of a newer server.
                    _ => continue,
                }
                progress.printed += 1;
            }
            if let Some(id) = parser.last_id().filter(|id| !id.is_empty())
                && progress.last_id.as_deref() != Some(id)
            {
                progress.last_id = Some(id.to_owned());
            }
            if arguments.limit.is_some_and(|limit| progress.printed >= limit) {
                return Ok(());
            }
        }
    }
}

fn print(context: &mut Context<'_>, event: &str) -> Result<(), Failure> {
    let line =
        if context.wants_json() { json::one_line(event).into_owned() } else { excerpt::line(event, &context.console) };
    context.console.line(&line)
}

/// Whether another connection may do better.
fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { .. } | Failure::NoAnswer(_) => true,
        Failure::Refused(problem) => problem.is_temporary(),
        _ => false,
    }
}

/// Between half of a delay and the whole, so that many clients do not come back at once.
fn jittered(delay: Duration, bits: u64) -> Duration {
    let half = delay / 2;
    let milliseconds = u64::try_from(half.as_millis()).unwrap_or(u64::MAX);
    half + Duration::from_millis(bits % (milliseconds + 1))
}
