//! Every dependency has its reason in ARCHITECTURE.md, and every reason its dependency.

use std::collections::BTreeSet;

use crate::{files, markdown};

#[test]
fn every_dependency_has_its_reason() {
    let rows = markdown::table(&files::read("ARCHITECTURE.md"), "dependencies");
    let mut described = BTreeSet::new();
    let mut faults = Vec::new();
    for row in rows {
        let [names, reason] = row.as_slice() else { panic!("not two cells: {row:?}") };
        if reason.split_whitespace().count() < 3 {
            faults.push(format!("{names}: `{reason}` is no reason"));
        }
        described.extend(markdown::names(names));
    }
    let manifest = files::read("Cargo.toml");
    let (_, section) = manifest.split_once("[workspace.dependencies]\n").expect("the workspace has dependencies");
    let section = section.split("\n[").next().unwrap_or_default();
    let used: BTreeSet<String> = section
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("path = "))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert!(used.len() > 10, "the manifest was not understood: {used:?}");
    faults.extend(used.difference(&described).map(|name| format!("{name} has no reason in ARCHITECTURE.md")));
    faults.extend(described.difference(&used).map(|name| format!("{name} has a reason, but nothing uses it")));
    files::assert_none("dependencies", &faults);
}
