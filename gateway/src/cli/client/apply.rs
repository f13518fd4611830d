//! `apply`: resource files to a running gateway.

use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_resources::{check, process_variable, read_files};

use super::api::Call;
use super::failure::Failure;
use super::text::{counted, printable};
use super::{Context, json as documents};
use crate::cli::arguments::Apply;

#[derive(Debug, Deserialize)]
struct Report {
    results: Vec<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    kind: String,
    name: String,
    outcome: String,
    detail: Option<String>,
}

/// Carries out `apply`. The files are checked here first, where their names and lines are known.
pub(super) async fn run(context: &mut Context<'_>, arguments: &Apply) -> Result<(), Failure> {
    let report = check(&arguments.files, &process_variable);
    if !report.is_ok() {
        let faults = report.diagnostics.iter().map(ToString::to_string).collect();
        return Err(Failure::Invalid { what: "nothing was sent, because the files have faults".to_owned(), faults });
    }
    let files = read_files(&arguments.files)
        .map_err(|diagnostics| Failure::Local(diagnostics.first().map(ToString::to_string).unwrap_or_default()))?;
    let texts: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
    let mut call = Call::new(Method::POST, &["apply"]).body("application/yaml", texts.join("\n---\n"));
    if arguments.dry_run {
        call = call.query("dryRun", "true");
    }
    let answer = context.api.call(call).await?;
    let Report { results } = documents::read(&answer.body)?;
    let would = if arguments.dry_run { "would be " } else { "" };
    let mut refused = 0;
    for result in &results {
        let entry: Entry = documents::read(result.get())?;
        refused += u64::from(entry.outcome == "refused");
        if context.wants_json() {
            context.console.line(&documents::one_line(result.get()))?;
            continue;
        }
        let Entry { kind, name, outcome, detail } = entry;
        let detail = detail.map_or_else(String::new, |detail| format!(": {}", printable(&detail)));
        let kind = printable(&kind).to_lowercase();
        let line = format!("{kind} {} {would}{}{detail}", printable(&name), printable(&outcome));
        context.console.line(&line)?;
    }
    if refused > 0 {
        return Err(Failure::Local(format!("{} of {} refused", refused, counted(results.len() as u64, "resource"))));
    }
    Ok(())
}
