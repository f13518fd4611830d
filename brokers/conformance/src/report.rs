//! What a run of the suite came to, and the tables that are made of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::runner::{Case, Ended};
use crate::specification::LEFT_OUT;

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Result {
    /// The case.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// How it ended.
    pub ended: Ended,
}

/// A run of the suite, in the order of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One for each case.
    pub results: Vec<Result>,
}

impl Report {
    pub(crate) fn new(mut results: Vec<Result>) -> Self {
        results.sort_by_key(|result| order(result.id));
        Self { results }
    }

    /// The cases that failed, each with what was expected and seen; empty where the adapter conforms.
    pub fn failures(&self) -> Vec<String> {
        self.results
            .iter()
            .filter_map(|result| match &result.ended {
                Ended::Failed(failure) => Some(format!("{} ({}): {failure}", result.id, result.title)),
                _ => None,
            })
            .collect()
    }

    fn status(&self, id: &str) -> (String, String) {
        match self.results.iter().find(|result| result.id == id).map(|result| &result.ended) {
            Some(Ended::Passed) => ("yes".to_owned(), String::new()),
            Some(Ended::Failed(_)) => ("**no**".to_owned(), String::new()),
            Some(Ended::NotRun(reason)) => ("-".to_owned(), reason.clone()),
            None => ("-".to_owned(), "not part of this run".to_owned()),
        }
    }
}

/// Groups in the order of the specification, then by number.
fn order(id: &str) -> (usize, String) {
    let group = id.split('-').next().unwrap_or_default();
    let place = ["PUB", "TAIL", "GRP", "RET", "REQ", "JRN", "CLM"].iter().position(|known| *known == group);
    (place.unwrap_or(usize::MAX), id.to_owned())
}

/// The cases as a table: id, title, needs.
pub fn table(cases: &[Case]) -> String {
    let mut sorted: Vec<&Case> = cases.iter().collect();
    sorted.sort_by_key(|case| order(case.id));
    let mut text = "| id | shows that | needs |\n|---|---|---|\n".to_owned();
    for case in sorted {
        let needs: Vec<String> = case.needs.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "| {} | {} | {} |", case.id, case.title, needs.join(", "));
    }
    text
}

/// Cases against brokers: which passed, which did not run, and why. Every specified case is in it.
pub fn matrix(brokers: &[(&str, &Report)]) -> String {
    let mut ids: BTreeSet<((usize, String), String)> =
        LEFT_OUT.iter().map(|(id, reason)| (order(id), (*reason).to_owned())).collect();
    let mut titles: Vec<(&str, &str)> = Vec::new();
    for result in brokers.iter().flat_map(|(_, report)| &report.results) {
        if !titles.iter().any(|(id, _)| *id == result.id) {
            titles.push((result.id, result.title));
            ids.insert((order(result.id), String::new()));
        }
    }
    let names: Vec<&str> = brokers.iter().map(|(name, _)| *name).collect();
    let mut text =
        format!("| id | shows that | {} | why not |\n|---|---|{}---|\n", names.join(" | "), "---|".repeat(names.len()));
    for ((_, id), left_out) in ids {
        let title = titles.iter().find(|(known, _)| *known == id).map_or("", |(_, title)| title);
        let statuses: Vec<(String, String)> = brokers.iter().map(|(_, report)| report.status(&id)).collect();
        let reason = if left_out.is_empty() {
            statuses.iter().map(|(_, reason)| reason.as_str()).find(|reason| !reason.is_empty()).unwrap_or_default()
        } else {
            &left_out
        };
        let statuses: Vec<&str> = statuses.iter().map(|(status, _)| status.as_str()).collect();
        let _ = writeln!(text, "| {id} | {title} | {} | {reason} |", statuses.join(" | "));
    }
    text
}
