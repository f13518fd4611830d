//! `dead-letters`: list, show, redrive, drop.

use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_schemas::limits;

mod redrive;

use super::api::Call;
use super::failure::Failure;
use super::table::Table;
use super::text::{counted, excerpt, printable, time};
use super::{Context, json as documents};
use crate::cli::arguments::DeadLetters;

/// What is shown of a cause in a list.
const CELL_CHARACTERS: usize = 60;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    dead_letters: Vec<Box<RawValue>>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DeadLetter {
    id: String,
    at: String,
    cause: Cause,
    event: Box<RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cause {
    sink: Option<String>,
    topic: Option<String>,
    partition: Option<u32>,
    position: Option<serde_json::Value>,
    reason: String,
    status: Option<u16>,
    #[serde(default)]
    detail: String,
    attempts: Option<u64>,
    first_attempt_at: Option<u64>,
    last_attempt_at: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct Identity {
    #[serde(default)]
    id: String,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Groups {
    groups: Vec<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    cause: String,
    count: u64,
    first_at: String,
    last_at: String,
    example: String,
    detail: String,
}

#[derive(Debug, Deserialize)]
struct Dropped {
    dropped: u64,
}

/// Carries out `dead-letters`.
pub(super) async fn run(context: &mut Context<'_>, command: &DeadLetters) -> Result<(), Failure> {
    match command {
        DeadLetters::List { subscription, group: true, cause } => groups(context, subscription, cause.as_deref()).await,
        DeadLetters::List { subscription, group: false, cause } => list(context, subscription, cause.as_deref()).await,
        DeadLetters::Show { subscription, id } => show(context, subscription, id).await,
        DeadLetters::Redrive(arguments) => redrive::run(context, arguments).await,
        DeadLetters::Drop { subscription, ids, all } => {
            drop_letters(context, subscription, if *all { &[] } else { ids }).await
        }
    }
}

/// Asks for the page after a dead letter.
async fn page(
    context: &Context<'_>,
    subscription: &str,
    cause: Option<&str>,
    after: Option<&str>,
) -> Result<Page, Failure> {
    let mut call = Call::new(Method::GET, &["subscriptions", subscription, "dead-letters"])
        .query("limit", &limits::CLIENT_DEAD_LETTERS.to_string());
    if let Some(cause) = cause {
        call = call.query("cause", cause);
    }
    if let Some(after) = after {
        call = call.query("after", after);
    }
    let page: Page = documents::read(&context.api.call(call).await?.body)?;
    if page.next.is_some() && page.next.as_deref() == after {
        return Err(Failure::Local("the gateway gives the same page again and again".to_owned()));
    }
    Ok(page)
}

async fn list(context: &mut Context<'_>, subscription: &str, cause: Option<&str>) -> Result<(), Failure> {
    let mut after = None;
    let mut listed = 0;
    loop {
        let Page { dead_letters, next } = page(context, subscription, cause, after.as_deref()).await?;
        if context.wants_json() {
            for letter in &dead_letters {
                context.console.line(&documents::one_line(letter.get()))?;
            }
        } else if !dead_letters.is_empty() {
            let lines = table(&dead_letters)?.lines();
            // Each page is a table of its own; only the first shows the header.
            if listed == 0 {
                context.console.table(&lines)?;
            } else {
                lines.iter().skip(1).try_for_each(|line| context.console.line(line))?;
            }
        }
        listed += dead_letters.len();
        after = match next {
            Some(next) => Some(next),
            None => break,
        };
    }
    let subscription = printable(subscription);
    if listed == 0 {
        context.console.hint(&format!("subscription {subscription} has no dead letters"));
    } else {
        context.suggest(&format!("dead-letters redrive {subscription}"));
    }
    Ok(())
}

async fn groups(context: &mut Context<'_>, subscription: &str, cause: Option<&str>) -> Result<(), Failure> {
    let mut call = Call::new(Method::GET, &["subscriptions", subscription, "dead-letters"]).query("group", "cause");
    if let Some(cause) = cause {
        call = call.query("cause", cause);
    }
    let Groups { groups } = documents::read(&context.api.call(call).await?.body)?;
    if context.wants_json() {
        return groups.iter().try_for_each(|group| context.console.line(&documents::one_line(group.get())));
    }
    let subscription = printable(subscription);
    if groups.is_empty() {
        context.console.hint(&format!("subscription {subscription} has no dead letters"));
        return Ok(());
    }
    let mut table = Table::new(&["CAUSE", ">COUNT", "FIRST", "LAST", "EXAMPLE", "DETAIL"]);
    for group in &groups {
        let Group { cause, count, first_at, last_at, example, detail } = documents::read(group.get())?;
        table.push(vec![
            printable(&cause).into_owned(),
            count.to_string(),
            printable(&first_at).into_owned(),
            printable(&last_at).into_owned(),
            printable(&example).into_owned(),
            excerpt(&detail, CELL_CHARACTERS),
        ]);
    }
    context.console.table(&table.lines())?;
    context.suggest(&format!("dead-letters list {subscription} --cause CAUSE"));
    Ok(())
}

fn table(letters: &[Box<RawValue>]) -> Result<Table, Failure> {
    let mut table = Table::new(&["ID", "AT", "REASON", ">STATUS", ">ATTEMPTS", "TYPE", "EVENT", "DETAIL"]);
    for letter in letters {
        let DeadLetter { id, at, cause, event } = documents::read(letter.get())?;
        let identity: Identity = documents::read(event.get())?;
        table.push(vec![
            printable(&id).into_owned(),
            printable(&at).into_owned(),
            printable(&cause.reason).into_owned(),
            or_dash(cause.status),
            or_dash(cause.attempts),
            excerpt(&identity.kind, CELL_CHARACTERS),
            excerpt(&identity.id, CELL_CHARACTERS),
            excerpt(&cause.detail, CELL_CHARACTERS),
        ]);
    }
    Ok(table)
}

async fn show(context: &mut Context<'_>, subscription: &str, id: &str) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let Page { dead_letters, next } = page(context, subscription, None, after.as_deref()).await?;
        for letter in &dead_letters {
            let read: DeadLetter = documents::read(letter.get())?;
            if read.id == id {
                if context.wants_json() {
                    return context.console.line(&documents::one_line(letter.get()));
                }
                print(context, &read)?;
                context.suggest(&format!("dead-letters redrive {} {}", printable(subscription), printable(id)));
                return Ok(());
            }
        }
        after = match next {
            Some(next) => Some(next),
            None => return Err(Failure::Local(format!("subscription {subscription} has no dead letter {id}"))),
        };
    }
}

fn print(context: &mut Context<'_>, letter: &DeadLetter) -> Result<(), Failure> {
    let DeadLetter { id, at, cause, event } = letter;
    let text = |value: &Option<String>| printable(value.as_deref().unwrap_or("-")).into_owned();
    let moment = |milliseconds: Option<u64>| milliseconds.and_then(time).unwrap_or_else(|| "-".to_owned());
    let position = cause.position.as_ref().map(|position| match position.as_str() {
        Some(position) => position.to_owned(),
        None => position.to_string(),
    });
    for (name, value) in [
        ("id", printable(id).into_owned()),
        ("at", printable(at).into_owned()),
        ("reason", printable(&cause.reason).into_owned()),
        ("status", or_dash(cause.status)),
        ("detail", printable(&cause.detail).into_owned()),
        ("attempts", or_dash(cause.attempts)),
        ("first attempt", moment(cause.first_attempt_at)),
        ("last attempt", moment(cause.last_attempt_at)),
        ("sink", text(&cause.sink)),
        ("topic", text(&cause.topic)),
        ("partition", or_dash(cause.partition)),
        ("position", text(&position)),
        ("event", printable(&documents::one_line(event.get())).into_owned()),
    ] {
        context.console.line(&format!("{name:<14} {value}"))?;
    }
    Ok(())
}

async fn drop_letters(context: &mut Context<'_>, subscription: &str, ids: &[String]) -> Result<(), Failure> {
    let ids = distinct(ids);
    let mut dropped = 0;
    for some in parts(&ids) {
        let call = Call::new(Method::DELETE, &["subscriptions", subscription, "dead-letters"]);
        let call = some.iter().fold(call, |call, id| call.query("id", id));
        let answer = context.api.call(call).await?;
        if context.wants_json() {
            context.console.line(&documents::one_line(&answer.body))?;
        }
        dropped += documents::read::<Dropped>(&answer.body)?.dropped;
    }
    if !context.wants_json() {
        context.console.line(&format!("dropped {}", counted(dropped, "dead letter")))?;
    }
    all_of(&ids, dropped)
}

/// The ids in the order in which they were named, each once.
fn distinct(ids: &[String]) -> Vec<&str> {
    let mut seen = std::collections::BTreeSet::new();
    ids.iter().map(String::as_str).filter(|id| seen.insert(*id)).collect()
}

/// The ids in parts that fit into a request; one empty part, which stands for all dead letters, where none is named.
fn parts<'a>(ids: &'a [&'a str]) -> Vec<&'a [&'a str]> {
    if ids.is_empty() { vec![&[]] } else { ids.chunks(limits::CLIENT_DEAD_LETTER_IDS).collect() }
}

/// Fails where ids were named that are not there.
fn all_of(ids: &[&str], done: u64) -> Result<(), Failure> {
    let missing = (ids.len() as u64).saturating_sub(done);
    if missing == 0 {
        return Ok(());
    }
    Err(Failure::Local(format!("{missing} of the dead letters named are not there, or not any more")))
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
