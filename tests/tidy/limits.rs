//! The limits that documents promise are those of the code: docs/limits.md is made from schemas/src/limits.rs.
//!
//! `TIDEGATE_REWRITE=1` writes the document anew.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::files;

const SOURCE: &str = "schemas/src/limits.rs";
const DOCUMENT: &str = "docs/limits.md";

struct Limit {
    name: String,
    meaning: String,
    value: String,
}

#[test]
fn the_documented_limits_are_those_of_the_code() {
    let limits = limits(&files::read(SOURCE));
    assert!(limits.len() > 20, "the table of limits was not understood");
    let expected = document(&limits);
    let path = tidegate_tests::workspace_root().join(DOCUMENT);
    if std::env::var_os("TIDEGATE_REWRITE").is_some() {
        std::fs::write(&path, &expected).expect("the document can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{DOCUMENT} differs from {SOURCE}; write it anew: TIDEGATE_REWRITE=1 cargo test -p tidegate-tests --test tidy limits"
    );
}

fn document(limits: &[Limit]) -> String {
    let mut text = "# Limits\n\n\
        Every queue, batch, retry, body and wait has a limit. These are the defaults; the table is made from\n\
        `schemas/src/limits.rs`, and a test compares the two.\n\n\
        | limit | default | what it bounds |\n|---|---|---|\n"
        .to_owned();
    for limit in limits {
        let _ = writeln!(text, "| `{}` | {} | {} |", limit.name, limit.value, limit.meaning);
    }
    text
}

/// Reads `/// meaning` and `pub const NAME: TYPE = VALUE;` up to the first item that is no constant.
fn limits(source: &str) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut numbers: BTreeMap<String, u128> = BTreeMap::new();
    let mut meaning = String::new();
    let joined = join_statements(source);
    for line in joined.lines() {
        if let Some(text) = line.strip_prefix("///") {
            meaning = format!("{meaning} {}", text.trim()).trim().to_owned();
        } else if let Some((name, rest)) = line
            .strip_prefix("pub const ")
            .filter(|rest| !rest.starts_with("fn "))
            .and_then(|rest| rest.split_once(": "))
        {
            let (kind, value) = rest.trim_end_matches(';').split_once(" = ").expect("a constant has a value");
            let number = evaluate(value, &numbers).unwrap_or_else(|| panic!("{name} = {value} is not understood"));
            numbers.insert(name.to_owned(), number);
            let value = if kind == "Duration" { duration(number) } else { quantity(name, number) };
            let meaning = plain(&std::mem::take(&mut meaning));
            limits.push(Limit { name: name.to_owned(), meaning, value });
        } else {
            meaning.clear();
        }
    }
    limits
}

/// Puts a constant that rustfmt broke over lines back into one.
fn join_statements(source: &str) -> String {
    let mut joined = String::new();
    let mut open = false;
    for line in source.lines() {
        if open {
            joined.push(' ');
            joined.push_str(line.trim());
        } else {
            joined.push('\n');
            joined.push_str(line);
        }
        open = (open || line.starts_with("pub const ")) && !line.trim_end().ends_with(';');
    }
    joined
}

/// Links to other items as plain names.
fn plain(text: &str) -> String {
    text.replace("[`", "`").replace("`]", "`").replace('|', "\\|").trim_end_matches('.').to_owned()
}

/// A product of numbers and earlier constants, or the difference of two; durations in milliseconds.
fn evaluate(value: &str, known: &BTreeMap<String, u128>) -> Option<u128> {
    for (call, milliseconds) in [("Duration::from_secs(", 1_000), ("Duration::from_millis(", 1)] {
        if let Some(inside) = value.strip_prefix(call) {
            return Some(evaluate(inside.strip_suffix(')')?, known)? * milliseconds);
        }
    }
    if let Some((from, less)) = value.split_once(" - ") {
        return evaluate(from, known)?.checked_sub(evaluate(less, known)?);
    }
    value
        .split('*')
        .map(|factor| {
            let factor = factor.trim();
            factor.replace('_', "").parse().ok().or_else(|| known.get(factor).copied())
        })
        .product()
}

fn duration(milliseconds: u128) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let unit = UNITS.iter().find(|(unit, _)| milliseconds >= 2 * unit || (milliseconds == *unit && *unit < 86_400_000));
    match unit.filter(|(unit, _)| milliseconds.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", milliseconds / unit),
        None => format!("{} ms", grouped(milliseconds)),
    }
}

fn quantity(name: &str, number: u128) -> String {
    const UNITS: [(u128, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    if !name.contains("BYTES") {
        return grouped(number);
    }
    let rate = if name.ends_with("_PER_SECOND") { "/s" } else { "" };
    match UNITS.iter().find(|(unit, _)| number >= *unit && number.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}{rate}", grouped(number / unit)),
        None => format!("{} bytes{rate}", grouped(number)),
    }
}

fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn limits_are_understood() {
    let source = "/// One\n/// and [`TWO`].\npub const A_BYTES: usize = 900 * 1024;\n\n/// B.\npub const B: Duration =\n    Duration::from_secs(24 * 60 * 60);\n/// C.\npub const C: usize = A_BYTES;\n";
    let found: Vec<String> =
        limits(source).into_iter().map(|limit| format!("{}={}={}", limit.name, limit.value, limit.meaning)).collect();
    assert_eq!(found, ["A_BYTES=900 KiB=One and `TWO`", "B=24 h=B", "C=921,600=C"]);
    let check = |milliseconds, expected: &str| assert_eq!(duration(milliseconds), expected);
    check(250, "250 ms");
    check(75_000, "75 s");
    check(10_000, "10 s");
    check(120_000, "2 min");
    check(60_000, "1 min");
    check(604_800_000, "7 d");
    assert_eq!(quantity("X_BYTES_PER_SECOND", 1024), "1 KiB/s");
    assert_eq!(quantity("X", 100_000), "100,000");
}
