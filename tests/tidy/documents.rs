//! What documents name is there: links, scripts, error codes.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::files;

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    let root = tidegate_tests::workspace_root();
    for path in files::with_extension("md") {
        let folder = root.join(path.parent().unwrap_or_else(|| Path::new("")));
        for target in link_targets(&files::read(&path)) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !file.starts_with("mailto:") && !folder.join(file).exists()
            {
                faults.push(format!("{}: {target} is not there", path.display()));
            }
        }
    }
    files::assert_none("links", &faults);
}

fn link_targets(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split([')', '\n', ' ']).next()).collect()
}

#[test]
fn scripts_that_documents_name_can_be_run() {
    let mut faults = Vec::new();
    let mut named = BTreeSet::new();
    let root = tidegate_tests::workspace_root();
    for path in files::with_extension("md") {
        for word in files::read(&path).split(|character: char| character.is_whitespace() || "`()|,".contains(character))
        {
            if let Some(script) = word.trim_start_matches("./").strip_prefix("scripts/") {
                named.insert(script.trim_end_matches(['.', ':', ';']).to_owned());
            }
        }
    }
    named.remove("");
    assert!(named.contains("test"), "README.md and CONTRIBUTING.md name the test command: {named:?}");
    for script in &named {
        let mode = std::fs::metadata(root.join("scripts").join(script)).map(|found| found.permissions().mode());
        match mode {
            Ok(mode) if mode & 0o111 != 0 => {}
            Ok(_) => faults.push(format!("scripts/{script} is not executable")),
            Err(error) => faults.push(format!("scripts/{script}: {error}")),
        }
    }
    files::assert_none("scripts", &faults);
}

/// The codes stand in one macro table of the gateway, each line `Variant = "code", STATUS, "Title";`.
#[test]
fn every_error_code_is_documented() {
    const TABLE: &str = "gateway/src/edge/problem/code.rs";
    if !tidegate_tests::workspace_root().join(TABLE).exists() {
        eprintln!("{TABLE} is not there: no error codes to compare");
        return;
    }
    let source = files::read(TABLE);
    let codes: BTreeSet<&str> = source.lines().filter_map(code_of).collect();
    assert!(codes.len() > 10, "the table of codes was not understood: {codes:?}");
    let document = files::read("docs/errors.md");
    let documented: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `").or_else(|| line.strip_prefix("## `")))
        .filter_map(|rest| rest.split('`').next())
        .collect();
    let mut faults = Vec::new();
    faults.extend(codes.difference(&documented).map(|code| format!("{code} is not in docs/errors.md")));
    faults.extend(documented.difference(&codes).map(|code| format!("{code} is documented, but no error has it")));
    files::assert_none("error codes", &faults);
}

fn code_of(line: &str) -> Option<&str> {
    let (variant, rest) = line.trim().split_once(" = \"")?;
    let (code, status) = rest.split_once("\", ")?;
    let named = variant.chars().all(char::is_alphanumeric) && status.starts_with(char::is_uppercase);
    named.then_some(code)
}

#[test]
fn documents_are_understood() {
    assert_eq!(link_targets("see [a](b.md#c) and [d](https://e)"), ["b.md#c", "https://e"]);
    assert_eq!(code_of(r#"    NotFound = "not-found", NOT_FOUND, "Nothing.";"#), Some("not-found"));
    assert_eq!(code_of(r#"let name = "not-found";"#), None);
}
