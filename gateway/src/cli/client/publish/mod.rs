//! `publish`: one event out of the arguments, or the events of a file.

mod event;
mod lines;
mod sender;

use std::path::Path;

use http::Method;
use tidegate_schemas::json::{EVENT_MEDIA_TYPE, to_bytes};
use tidegate_schemas::limits;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::api::Call;
use super::failure::Failure;
use super::{Context, json, text};
use crate::cli::arguments::Publish;
use event::{Payloads, Template};
use lines::Lines;
use sender::Sender;

/// Carries out `publish`.
pub(super) async fn run(context: &mut Context<'_>, arguments: &Publish) -> Result<(), Failure> {
    let Some(file) = &arguments.file else {
        return single(context, arguments).await;
    };
    let name = if file.as_os_str() == "-" { "stdin".to_owned() } else { file.display().to_string() };
    let mut sender = Sender::new(&arguments.topic, name);
    let outcome = from_file(context, arguments, file, &mut sender).await;
    context.console.end_progress();
    let published = text::counted(sender.published, "event");
    match &outcome {
        Ok(()) => {
            context.console.hint(&format!("{published} published to {}", text::printable(&arguments.topic)));
            context.suggest(&format!("tail {} --from earliest", text::printable(&arguments.topic)));
        }
        Err(_) => context.console.note(&format!("{published} published before the following error")),
    }
    outcome
}

/// One event out of the arguments.
async fn single(context: &mut Context<'_>, arguments: &Publish) -> Result<(), Failure> {
    let template = Template { arguments, environment: context.environment };
    let event = template.event(arguments.data.as_deref()).map_err(|faults| Failure::Usage(faults.to_string()))?;
    let call = Call::new(Method::POST, &["topics", &arguments.topic]).body(EVENT_MEDIA_TYPE, to_bytes(&event));
    let sent = context.api.call(call).await;
    if let Err(failure) = &sent
        && failure.is_outcome_unknown()
    {
        let id = text::printable(event.id());
        context.console.note(&format!("the event's id is {id}; publishing it again with --id {id} is safe"));
    }
    for receipt in sender::receipts(&sent?)? {
        sender::print(context, receipt)?;
    }
    context.suggest(&format!("tail {} --from earliest", text::printable(&arguments.topic)));
    Ok(())
}

async fn from_file(
    context: &mut Context<'_>,
    arguments: &Publish,
    path: &Path,
    sender: &mut Sender<'_>,
) -> Result<(), Failure> {
    let template = Template { arguments, environment: context.environment };
    if path.as_os_str() == "-" {
        let input = context.console.input.take();
        let input = input.ok_or_else(|| Failure::Local("standard input is not there".to_owned()))?;
        context.console.begin_progress(None);
        return from_lines(context, &template, input, Payloads::Any, sender).await;
    }
    let by_lines = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ndjson" | "jsonl") => true,
        Some("json") => false,
        _ => {
            let name = path.display();
            return Err(Failure::Usage(format!(
                "{name}: the name must end in .json or .ndjson, or be - for standard input"
            )));
        }
    };
    let unreadable = |error: std::io::Error| Failure::Local(format!("{}: cannot be read: {error}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let bytes = file.metadata().await.map_err(unreadable)?.len();
    context.console.begin_progress(Some(bytes));
    if by_lines {
        return from_lines(context, &template, file, Payloads::Json, sender).await;
    }
    let mut document = String::new();
    file.take(limits::CLIENT_FILE_BYTES + 1).read_to_string(&mut document).await.map_err(unreadable)?;
    if document.len() as u64 > limits::CLIENT_FILE_BYTES {
        let (name, most) = (path.display(), text::bytes(limits::CLIENT_FILE_BYTES));
        return Err(Failure::Local(format!(
            "{name}: the file is larger than {most}; write one event a line to a .ndjson file"
        )));
    }
    from_document(context, &template, &document, sender).await
}

/// One event or payload a line; blank lines are skipped.
async fn from_lines(
    context: &mut Context<'_>,
    template: &Template<'_>,
    source: impl AsyncRead + Unpin,
    payloads: Payloads,
    sender: &mut Sender<'_>,
) -> Result<(), Failure> {
    let mut lines = Lines::new(source, limits::CLIENT_LINE_BYTES);
    let mut read_bytes = 0;
    loop {
        // Whoever types the lines, or writes them slowly, wants each to go out without waiting for a full batch.
        let next = match sender.has_pending() {
            true => match tokio::time::timeout(limits::CLIENT_BATCH_LINGER, lines.next()).await {
                Ok(next) => next,
                Err(_) => {
                    sender.flush(context).await?;
                    context.console.advance(read_bytes, sender.published);
                    continue;
                }
            },
            false => lines.next().await,
        };
        let item = match next {
            Ok(None) => break,
            Ok(Some(line)) => {
                read_bytes = line.end_bytes;
                if line.text.trim().is_empty() {
                    continue;
                }
                template
                    .item(line.number, &line.text, payloads)
                    .map_err(|failure| failure.at(sender.place(line.number)))
            }
            Err(error) => {
                let place = error.line().map_or_else(|| sender.source().to_owned(), |line| sender.place(line));
                Err(Failure::Local(error.to_string()).at(place))
            }
        };
        match item {
            Ok(item) => sender.push(context, item).await?,
            Err(failure) => {
                // What stands before the faulty line is published; an error of that comes first.
                sender.flush(context).await?;
                return Err(failure);
            }
        }
        context.console.advance(read_bytes, sender.published);
    }
    sender.flush(context).await
}

/// One event or payload, or an array of them. All are read before the first is sent.
async fn from_document(
    context: &mut Context<'_>,
    template: &Template<'_>,
    document: &str,
    sender: &mut Sender<'_>,
) -> Result<(), Failure> {
    let document = document.trim_start_matches('\u{feff}');
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(document) {
        return Err(Failure::Local(format!("not JSON: {error}")).at(sender.place(error.line() as u64)));
    }
    let texts = match json::elements(document) {
        Some(elements) => elements.into_iter().map(|element| element.get()).collect(),
        None => vec![document.trim()],
    };
    let mut items = Vec::with_capacity(texts.len());
    let (mut line, mut seen) = (1, 0);
    for text in texts {
        // The texts are slices of the document, in its order.
        let begins = text.as_ptr() as usize - document.as_ptr() as usize;
        line += document[seen..begins].bytes().filter(|byte| *byte == b'\n').count() as u64;
        seen = begins;
        items.push(template.item(line, text, Payloads::Json).map_err(|failure| failure.at(sender.place(line)))?);
    }
    let total = document.len() as u64;
    let count = items.len() as u64;
    for item in items {
        sender.push(context, item).await?;
        context.console.advance(total * sender.published / count.max(1), sender.published);
    }
    sender.flush(context).await
}
