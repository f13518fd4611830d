//! `docs/conformance.md`: which case passes on which backbone. Each adapter's tests write their own column.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cases::cases;
use crate::report::{Report, order};
use crate::runner::Ended;
use crate::specification::LEFT_OUT;

const BEGIN: &str = "<!-- cases -->\n";
const END: &str = "<!-- end of cases -->\n";
const BROKERS: &str = "<!-- brokers -->\n";
const NO_RUN: &str = "no run yet";

const HEAD: &str = "\
# Conformance

Which backbone keeps which part of the contract. Each column is what a run of the suite of `brokers/conformance` came to, and
the run of every adapter's tests compares: `TIDEGATE_FAULTS=all TIDEGATE_REWRITE=1 cargo test -p tidegate-embedded --test
conformance` writes that adapter's column anew. `yes` means that the case passes; `-` that it does not run, for the reason that
stands beside it. [The suite](../brokers/conformance/README.md) says what the cases need.

";

/// One backbone's results: the status of each case, and why where it is not `yes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Column {
    /// The broker's version, the commit of ours, and the day, as the document has them.
    about: String,
    results: BTreeMap<String, (String, String)>,
}

/// The document as columns by the backbone's name.
type Columns = BTreeMap<String, Column>;

/// Writes the column of a run to `target/conformance`, and under `TIDEGATE_REWRITE=1` into the document; gives where the
/// document differs from the run. Cases that this run left out are not compared.
///
/// # Panics
///
/// Where neither can be written.
#[must_use = "a document that is not true is a failure"]
pub fn record(backbone: &str, version: &str, report: &Report) -> Vec<String> {
    let mut columns = parse(&std::fs::read_to_string(path()).unwrap_or_default());
    let known = columns.entry(backbone.to_owned()).or_default();
    let mut fresh = Column { about: about(version), results: BTreeMap::new() };
    let mut differences = Vec::new();
    for result in &report.results {
        let status = match &result.ended {
            Ended::Passed => ("yes".to_owned(), String::new()),
            Ended::Failed(_) => ("**no**".to_owned(), String::new()),
            // It stays as an earlier run found it.
            Ended::NotRun(reason) if reason == crate::faults::LEFT_OUT => match known.results.get(result.id) {
                Some(status) => status.clone(),
                None => ("-".to_owned(), NO_RUN.to_owned()),
            },
            Ended::NotRun(reason) => ("-".to_owned(), reason.clone()),
        };
        let left_out = matches!(&result.ended, Ended::NotRun(reason) if reason == crate::faults::LEFT_OUT);
        if !left_out && known.results.get(result.id).map(|(known, _)| known) != Some(&status.0) {
            differences.push(format!(
                "{} {backbone}: docs/conformance.md says {:?}, this run {:?}",
                result.id,
                known.results.get(result.id).map(|known| &known.0),
                status.0
            ));
        }
        fresh.results.insert(result.id.to_owned(), status);
    }
    write_column(backbone, &fresh);
    if std::env::var_os("TIDEGATE_REWRITE").is_none() {
        return differences;
    }
    columns.insert(backbone.to_owned(), fresh);
    std::fs::write(path(), text(&columns)).expect("the document can be written");
    Vec::new()
}

/// What is wrong with the document as it stands: cases that are missing, failed or without a reason.
pub fn faults() -> Vec<String> {
    let found = std::fs::read_to_string(path()).unwrap_or_default();
    let columns = parse(&found);
    let mut faults = Vec::new();
    if columns.is_empty() {
        faults.push("docs/conformance.md has no column".to_owned());
    }
    for (backbone, column) in &columns {
        for case in cases() {
            match column.results.get(case.id) {
                None => faults.push(format!("{} has no result for {backbone}", case.id)),
                Some((status, _)) if status == "yes" => {}
                Some((status, reason)) if status == "-" && !reason.is_empty() => {}
                Some(seen) => faults.push(format!("{} of {backbone} stands as {seen:?}", case.id)),
            }
        }
    }
    if faults.is_empty() && found != text(&columns) {
        faults.push("docs/conformance.md has a case or a text that is not the suite's any more".to_owned());
    }
    faults
}

/// The document of the columns as they are known, with every case that there is now.
pub fn rewrite() {
    let columns = parse(&std::fs::read_to_string(path()).unwrap_or_default());
    // Without any column there is nothing to keep: the first adapter's run writes it.
    if !columns.is_empty() {
        std::fs::write(path(), text(&columns)).expect("the document can be written");
    }
}

fn text(columns: &Columns) -> String {
    let mut text = format!("{HEAD}{BROKERS}| backbone | broker, commit and day of the run |\n|---|---|\n");
    for (backbone, column) in columns {
        let _ = writeln!(text, "| {backbone} | {} |", column.about);
    }
    let names: Vec<&str> = columns.keys().map(String::as_str).collect();
    let _ = write!(
        text,
        "\n{BEGIN}| id | shows that | {} | why not |\n|---|---|{}---|\n",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    let mut rows: Vec<(&str, &str)> = cases().iter().map(|case| (case.id, case.title)).collect();
    rows.extend(LEFT_OUT.iter().map(|(id, _)| (*id, "")));
    rows.sort_by_key(|(id, _)| order(id));
    for (id, title) in rows {
        let left_out = LEFT_OUT.iter().find(|(left_out, _)| *left_out == id);
        let nothing = ("-".to_owned(), NO_RUN.to_owned());
        let cells: Vec<&(String, String)> =
            columns.values().map(|column| column.results.get(id).unwrap_or(&nothing)).collect();
        let reason = match left_out {
            Some((_, reason)) => (*reason).to_owned(),
            None => {
                let reasons = names.iter().zip(&cells).filter(|(_, (_, reason))| !reason.is_empty());
                reasons.map(|(name, (_, reason))| format!("{name}: {reason}")).collect::<Vec<_>>().join("; ")
            }
        };
        let statuses: Vec<&str> =
            cells.iter().map(|(status, _)| if left_out.is_some() { "-" } else { status.as_str() }).collect();
        let _ = writeln!(text, "| {id} | {title} | {} | {reason} |", statuses.join(" | "));
    }
    text + END
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// The columns of a document; those that it has nothing of are empty.
fn parse(text: &str) -> Columns {
    let mut columns = Columns::new();
    let Some((head, rest)) = text.split_once(BEGIN) else { return columns };
    let mut lines = rest.lines().take_while(|line| line.starts_with('|'));
    let names: Vec<String> =
        lines.next().map(cells).unwrap_or_default().iter().map(|name| (*name).to_owned()).collect();
    let names = names.get(2..names.len().saturating_sub(1)).unwrap_or_default();
    for name in names {
        let about = head.lines().map(cells).find(|cells| cells.len() == 2 && cells[0] == name);
        let about = about.map(|cells| cells[1].to_owned()).unwrap_or_default();
        columns.insert(name.clone(), Column { about, results: BTreeMap::new() });
    }
    for line in lines.skip(1) {
        let cells = cells(line);
        let (Some(id), Some(reasons)) = (cells.first(), cells.last()) else { continue };
        for (name, status) in names.iter().zip(cells.iter().skip(2)) {
            let prefix = format!("{name}: ");
            let reason = reasons.split("; ").find_map(|reason| reason.strip_prefix(&prefix)).unwrap_or_default();
            if let Some(column) = columns.get_mut(name) {
                column.results.insert((*id).to_owned(), ((*status).to_owned(), reason.to_owned()));
            }
        }
    }
    columns
}

/// One line for each case, beside the document: what a run found, also where the document is not written.
fn write_column(backbone: &str, column: &Column) {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = root().join(target).join("conformance");
    let mut text = format!("{}\n", column.about);
    for (id, (status, reason)) in &column.results {
        let _ = writeln!(text, "{id}\t{status}\t{reason}");
    }
    std::fs::create_dir_all(&folder).expect("the folder of what is built is ours");
    std::fs::write(folder.join(format!("{backbone}.tsv")), text).expect("the folder is ours");
}

fn about(version: &str) -> String {
    let tell = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(root()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = tell("git", &["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(|| "unknown commit".to_owned());
    let day = tell("date", &["-u", "+%F"]).unwrap_or_else(|| "unknown day".to_owned());
    format!("{version}, {commit}, {day}")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn path() -> PathBuf {
    root().join("docs/conformance.md")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::Failure;
    use crate::report::Result;

    fn report(ended: impl Fn(&str) -> Ended) -> Report {
        let results = cases().into_iter().map(|case| Result { id: case.id, title: case.title, ended: ended(case.id) });
        Report { results: results.collect() }
    }

    fn column(report: &Report) -> Column {
        let results = report.results.iter().map(|result| {
            let status = match &result.ended {
                Ended::Passed => ("yes".to_owned(), String::new()),
                Ended::Failed(Failure(_)) => ("**no**".to_owned(), String::new()),
                Ended::NotRun(reason) => ("-".to_owned(), reason.clone()),
            };
            (result.id.to_owned(), status)
        });
        Column { about: "1.0, abc, 2026-01-01".to_owned(), results: results.collect() }
    }

    #[test]
    fn columns_come_back_from_the_document() {
        let some =
            report(|id| if id == "CLM-01" { Ended::NotRun("it is not exclusive".to_owned()) } else { Ended::Passed });
        let all = report(|_| Ended::Passed);
        let columns = Columns::from([("one".to_owned(), column(&some)), ("two".to_owned(), column(&all))]);
        let text = text(&columns);
        let mut parsed = parse(&text);
        // Cases that are left out stand in the document, and are no result of a run.
        for column in parsed.values_mut() {
            column.results.retain(|id, _| !LEFT_OUT.iter().any(|(left_out, _)| left_out == id));
        }
        assert_eq!(parsed, columns);
        assert!(text.contains("one: it is not exclusive"), "{text}");
    }
}
