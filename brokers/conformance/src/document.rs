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
/// Reasons that say something of one run and nothing of the backbone.
const NOT_THIS_TIME: [&str; 2] = [crate::faults::LEFT_OUT, crate::runner::NOT_HAD];

const HEAD: &str = "\
# Conformance

Which backbone keeps which part of the contract. Each column is what a run of the suite of `brokers/conformance` came to, and
the run of every adapter's tests compares: `TIDEGATE_FAULTS=all TIDEGATE_REWRITE=1 cargo test -p tidegate-embedded --test
conformance` writes that adapter's column anew, `-p tidegate-nats` that of NATS, and so on. `yes` means that the case passes; `-`
that it does not run there, for the reason that stands behind the backbone's name.
[The suite](../brokers/conformance/README.md) says what the cases need.

";

/// One backbone's results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Column {
    /// The broker's version, the commit of ours, and the day, as the document has them.
    about: String,
    results: Results,
}

/// The status of each case by its id, and why where it is not `yes`.
type Results = BTreeMap<String, (String, String)>;

/// The document as columns by the backbone's name.
type Columns = BTreeMap<String, Column>;

/// Writes the column of a run to `target/conformance`, and under `TIDEGATE_REWRITE=1` into the document; gives where the
/// document differs from the run, and where the run is not whole: every case stands in it once, those that the backbone's tests
/// leave out with their reason ([`Report::left_out`]). What could not run this time is not compared, and stays as it was; a case
/// that had no run yet is not compared either.
///
/// # Panics
///
/// Where neither can be written.
#[must_use = "a document that is not true is a failure"]
pub fn record(backbone: &str, version: &str, report: &Report) -> Vec<String> {
    let mut columns = parse(&std::fs::read_to_string(path()).unwrap_or_default());
    let known = columns.remove(backbone).unwrap_or_default();
    let (results, differences) = compare(backbone, &known.results, report);
    let fresh = Column { about: about(version), results };
    write_column(backbone, &fresh);
    let mut faults = faults_of(backbone, report);
    if std::env::var_os("TIDEGATE_REWRITE").is_none() {
        faults.extend(differences);
        return faults;
    }
    columns.insert(backbone.to_owned(), fresh);
    std::fs::write(path(), text(&columns)).expect("the document can be written");
    faults
}

/// The results of a run over those that were known, and where the two differ.
fn compare(backbone: &str, known: &Results, report: &Report) -> (Results, Vec<String>) {
    let (mut fresh, mut differences) = (Results::new(), Vec::new());
    for result in &report.results {
        // Whoever adds a case may not have every broker: its first run elsewhere differs from nothing.
        let is_first = |known: Option<&(String, String)>| known.is_none_or(|(_, reason)| reason == NO_RUN);
        let compares = known.is_empty() || !is_first(known.get(result.id));
        let known = known.get(result.id);
        let status = match &result.ended {
            Ended::Passed => ("yes".to_owned(), String::new()),
            Ended::Failed(_) => ("**no**".to_owned(), String::new()),
            Ended::NotRun(reason) if NOT_THIS_TIME.contains(&reason.as_str()) => {
                // It stays as an earlier run found it.
                let kept = known.cloned().unwrap_or_else(|| ("-".to_owned(), NO_RUN.to_owned()));
                fresh.insert(result.id.to_owned(), kept);
                continue;
            }
            Ended::NotRun(reason) => ("-".to_owned(), reason.clone()),
        };
        if compares && known != Some(&status) {
            let id = result.id;
            differences.push(format!("{id} {backbone}: docs/conformance.md says {known:?}, this run {status:?}"));
        }
        fresh.insert(result.id.to_owned(), status);
    }
    (fresh, differences)
}

/// Where a run does not account for every case once, and reasons that the document cannot give back.
fn faults_of(backbone: &str, report: &Report) -> Vec<String> {
    let mut faults = Vec::new();
    for case in cases() {
        let count = report.results.iter().filter(|result| result.id == case.id).count();
        if count != 1 {
            faults.push(format!("{} {backbone}: the run has {count} results of it, and must have one", case.id));
        }
    }
    for result in &report.results {
        if let Ended::NotRun(reason) = &result.ended
            && (reason.is_empty() || reason.contains("; ") || reason.contains(['|', '\n']))
        {
            faults.push(format!("{} {backbone}: {reason:?} is no reason that fits into a cell", result.id));
        }
    }
    faults
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
        let (results, _) = compare("one", &Results::new(), report);
        Column { about: "1.0, abc, 2026-01-01".to_owned(), results }
    }

    fn left_out(id: &'static str, reason: &str) -> Report {
        report(|known| if known == id { Ended::NotRun(reason.to_owned()) } else { Ended::Passed })
    }

    #[test]
    fn columns_come_back_from_the_document() {
        let some = left_out("CLM-01", "it is not exclusive");
        let others = left_out("CLM-01", "it is shared, and has one slot");
        let all = report(|_| Ended::Passed);
        let columns = Columns::from([
            ("one".to_owned(), column(&some)),
            ("two".to_owned(), column(&all)),
            ("two again".to_owned(), column(&others)),
        ]);
        let text = text(&columns);
        let mut parsed = parse(&text);
        // Cases that are left out stand in the document, and are no result of a run.
        for column in parsed.values_mut() {
            column.results.retain(|id, _| !LEFT_OUT.iter().any(|(left_out, _)| left_out == id));
        }
        assert_eq!(parsed, columns);
        let reasons = "| - | yes | - | one: it is not exclusive; two again: it is shared, and has one slot |";
        assert!(text.contains(reasons), "{text}");
    }

    #[test]
    fn a_run_is_compared_with_what_is_known() {
        let known = column(&left_out("CLM-01", "it is not exclusive")).results;
        let differences = |report: &Report| compare("one", &known, report).1;
        assert_eq!(differences(&left_out("CLM-01", "it is not exclusive")), Vec::<String>::new());
        assert_eq!(differences(&report(|_| Ended::Passed)).len(), 1, "it passes by now");
        assert_eq!(differences(&left_out("CLM-01", "another reason")).len(), 1, "the reason is another one");
        let failed = report(|id| match id {
            "CLM-01" => Ended::NotRun("it is not exclusive".to_owned()),
            "PUB-01" => Ended::Failed(Failure::new("lost")),
            _ => Ended::Passed,
        });
        assert_eq!(differences(&failed).len(), 1, "a case fails");
        assert_eq!(compare("one", &Results::new(), &failed).1.len(), failed.results.len(), "there is no column");
        let mut older = known.clone();
        older.insert("PUB-01".to_owned(), ("-".to_owned(), NO_RUN.to_owned()));
        older.remove("PUB-02");
        assert_eq!(compare("one", &older, &left_out("CLM-01", "it is not exclusive")).1, Vec::<String>::new());
        // What could not run this time says nothing, and leaves what is known.
        for reason in NOT_THIS_TIME {
            let (results, differences) = compare("one", &known, &report(|_| Ended::NotRun(reason.to_owned())));
            assert_eq!((&results, differences.len()), (&known, 0));
        }
    }

    #[test]
    fn a_run_accounts_for_every_case_once() {
        let all = report(|_| Ended::Passed);
        assert_eq!(faults_of("one", &all), Vec::<String>::new());
        let mut less = all.clone();
        less.results.pop();
        assert_eq!(faults_of("one", &less).len(), 1, "a case is missing");
        let twice = Report { results: all.results[..1].to_vec() };
        assert_eq!(faults_of("one", &all.and(twice)).len(), 1, "a case stands twice");
        for reason in ["", "one; two", "a | b"] {
            assert_eq!(faults_of("one", &left_out("CLM-01", reason)).len(), 1, "{reason:?} cannot be read back");
        }
    }

    #[test]
    fn what_is_left_out_is_told_with_its_reason() {
        let mut some = cases();
        let told = Report::left_out(&mut some, &[("CLM-01", "it is not exclusive")]);
        assert_eq!((some.len() + 1, told.results.len()), (cases().len(), 1));
        assert_eq!(told.results[0].ended, Ended::NotRun("it is not exclusive".to_owned()));
    }
}
