//! `dead-letters redrive`: all or some, edited, at a rate, with what is left of it on a terminal.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::api::Call;
use super::super::failure::Failure;
use super::super::text::{counted, printable};
use super::super::{Context, json as documents, text_of};
use super::{all_of, distinct, parts};
use crate::cli::arguments::RedriveLetters;

/// How often a terminal is told what is left.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Deserialize)]
struct Redriven {
    redriven: u64,
    #[serde(default)]
    more: bool,
    #[serde(default)]
    ids: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Subscription {
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Status {
    standing: String,
    #[serde(default)]
    redriving: u64,
}

/// Carries out `dead-letters redrive`.
pub(super) async fn run(context: &mut Context<'_>, arguments: &RedriveLetters) -> Result<(), Failure> {
    let subscription = &arguments.subscription;
    let ids = distinct(&arguments.ids);
    let edit = match &arguments.edit {
        Some(_) if ids.len() != 1 => {
            return Err(Failure::Usage("--edit goes with exactly one dead letter; name it".to_owned()));
        }
        Some(path) => {
            let text = text_of(context, path).await?;
            let edit: Value = serde_json::from_str(&text)
                .map_err(|error| Failure::Local(format!("{}: is no JSON: {error}", path.display())))?;
            Some(edit)
        }
        None => None,
    };
    let (mut redriven, mut more) = (0, false);
    for some in parts(&ids) {
        let mut body = if some.is_empty() { json!({}) } else { json!({ "ids": some }) };
        if let Some(cause) = &arguments.cause {
            body["filter"] = json!({ "cause": cause });
        }
        if let Some(rate) = arguments.rate {
            body["ratePerSecond"] = json!(rate);
        }
        if let (Some(edit), Some(id)) = (&edit, some.first()) {
            body["edits"] = json!({ *id: edit });
        }
        if arguments.dry_run {
            body["dryRun"] = json!(true);
        }
        let call = Call::new(Method::POST, &["subscriptions", subscription, "dead-letters", "redrive"])
            .body("application/json", body.to_string());
        let answer = context.api.call(call).await?;
        let told: Redriven = documents::read(&answer.body)?;
        if context.wants_json() {
            context.console.line(&documents::one_line(&answer.body))?;
        } else {
            for id in &told.ids {
                context.console.line(&printable(id))?;
            }
        }
        redriven += told.redriven;
        more |= told.more;
    }
    if !context.wants_json() {
        let done = if arguments.dry_run { "would redrive" } else { "redriven" };
        context.console.line(&format!("{done} {}", counted(redriven, "dead letter")))?;
    }
    all_of(&ids, redriven)?;
    if more {
        context.console.note("there are more than are taken up at once; redrive again when these are settled");
    }
    if arguments.dry_run {
        return Ok(());
    }
    if context.console.attended && !context.wants_json() {
        follow(context, subscription, redriven).await?;
    }
    context.suggest(&format!("subscriptions show {}", printable(subscription)));
    Ok(())
}

/// Shows what is left until nothing is, or until deliveries stand still. The redrive goes on without anybody who looks.
async fn follow(context: &mut Context<'_>, subscription: &str, total: u64) -> Result<(), Failure> {
    context.console.begin_count(total);
    loop {
        let answer = context.api.call(Call::new(Method::GET, &["subscriptions", subscription])).await?;
        let Subscription { status } = documents::read(&answer.body)?;
        context.console.count(total.saturating_sub(status.redriving), "dead letter");
        if status.redriving == 0 || status.standing != "active" {
            context.console.end_progress();
            if status.redriving > 0 {
                let left = counted(status.redriving, "dead letter");
                context.console.hint(&format!("the subscription is {}; {left} wait", printable(&status.standing)));
            }
            return Ok(());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
