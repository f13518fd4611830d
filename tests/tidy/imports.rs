//! Imports point down: the table in ARCHITECTURE.md against every Cargo.toml and every `use`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{files, markdown};

/// One row of the table: a crate, its folder, and what it may import.
struct Layer {
    name: String,
    folder: String,
    imports: BTreeSet<String>,
    in_tests: BTreeSet<String>,
}

fn layers() -> Vec<Layer> {
    let rows = markdown::table(&files::read("ARCHITECTURE.md"), "layers");
    let set = |cell: &str| markdown::names(cell).into_iter().collect();
    rows.into_iter()
        .map(|row| {
            let [name, folder, imports, in_tests] =
                <[String; 4]>::try_from(row).unwrap_or_else(|row| panic!("not four cells: {row:?}"));
            Layer { name, folder, imports: set(&imports), in_tests: set(&in_tests) }
        })
        .collect()
}

fn metadata() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(tidegate_tests::workspace_root())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    metadata["packages"].as_array().expect("a workspace has packages").clone()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {value}"))
}

#[test]
fn the_table_names_every_crate_and_each_imports_only_what_stands_above_it() {
    let mut faults = Vec::new();
    let mut above = BTreeSet::new();
    let layers = layers();
    for layer in &layers {
        let unknown = layer.imports.union(&layer.in_tests).filter(|name| !above.contains(*name));
        faults.extend(unknown.map(|name| format!("{} may import {name}, which does not stand above it", layer.name)));
        above.insert(layer.name.clone());
    }
    let root = tidegate_tests::workspace_root();
    let mut members = BTreeMap::new();
    for package in metadata() {
        let manifest = Path::new(text(&package, "manifest_path"));
        let folder =
            manifest.parent().and_then(|folder| folder.strip_prefix(&root).ok()).expect("it lies below the root");
        members.insert(text(&package, "name").to_owned(), folder.display().to_string());
    }
    let described: BTreeMap<_, _> = layers.into_iter().map(|layer| (layer.name, layer.folder)).collect();
    if members != described {
        faults.push(format!("the workspace has {members:#?}\nARCHITECTURE.md has {described:#?}"));
    }
    files::assert_none("layers", &faults);
}

#[test]
fn manifests_import_what_the_table_allows() {
    let layers: BTreeMap<_, _> = layers().into_iter().map(|layer| (layer.name.clone(), layer)).collect();
    let mut faults = Vec::new();
    for package in metadata() {
        let name = text(&package, "name");
        let Some(layer) = layers.get(name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let imported = text(dependency, "name");
            // A crate of ours, or one that only has our prefix: both belong into the table.
            let ours = dependency["path"].is_string() || imported.starts_with("tidegate");
            let in_tests = dependency["kind"] == "dev";
            let allowed = layer.imports.contains(imported)
                || (in_tests && layer.in_tests.contains(imported))
                || (in_tests && imported == name);
            if ours && !allowed {
                faults.push(format!("{name} imports {imported}, which ARCHITECTURE.md does not allow"));
            }
        }
    }
    files::assert_none("imports", &faults);
}

#[test]
fn sources_name_only_what_the_table_allows() {
    let mut faults = Vec::new();
    let layers = layers();
    for path in files::with_extension("rs") {
        let folder = path.display().to_string();
        // The fuzz targets are a workspace of their own, beside the layers.
        if folder.starts_with("tests/fuzz/") {
            continue;
        }
        let Some(layer) = layers.iter().find(|layer| folder.starts_with(&format!("{}/", layer.folder))) else {
            continue;
        };
        for line in files::read(&path).lines().filter(|line| is_import(line)) {
            for named in crates_named(line) {
                let allowed = layer.imports.union(&layer.in_tests).any(|name| *name == named) || layer.name == named;
                if !allowed {
                    faults.push(format!("{}: `{}` is not for {}", path.display(), line.trim(), layer.name));
                }
            }
        }
    }
    files::assert_none("imports", &faults);
}

fn is_import(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("use ") || line.starts_with("pub use ") || line.starts_with("pub(crate) use ")
}

/// The crates of ours that an import names, as Cargo writes them.
fn crates_named(line: &str) -> Vec<String> {
    let words = line.split(|character: char| !(character.is_alphanumeric() || character == '_'));
    words.filter(|word| word.starts_with("tidegate_")).map(|word| word.replace('_', "-")).collect()
}

/// The second table: names that stand only in certain places.
#[test]
fn names_stay_where_they_belong() {
    let rows = markdown::table(&files::read("ARCHITECTURE.md"), "names");
    let mut faults = Vec::new();
    for row in &rows {
        let [names, below, only_in] = row.as_slice() else { panic!("not three cells: {row:?}") };
        let (names, below, only_in) = (markdown::names(names), markdown::names(below), markdown::names(only_in));
        for path in files::with_extension("rs") {
            let place = path.display().to_string();
            let concerned = below.iter().any(|folder| place.starts_with(folder.as_str()));
            if !concerned || only_in.iter().any(|allowed| place.starts_with(allowed.as_str())) {
                continue;
            }
            // Tests of a module may stand on what the module itself may not.
            if place.ends_with("tests.rs") || place.contains("/tests/") {
                continue;
            }
            let source = files::read(&path);
            let source = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            for (number, line) in source.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
                let named = names.iter().filter(|name| line.contains(name.as_str()));
                faults.extend(named.map(|name| format!("{place}:{}: `{name}` does not belong here", number + 1)));
            }
        }
    }
    files::assert_none("names", &faults);
}

#[test]
fn imports_are_recognised() {
    assert_eq!(crates_named("use tidegate_schemas::{Event, http};"), ["tidegate-schemas"]);
    assert!(is_import("    pub(crate) use tidegate_routing::topic;"));
    assert!(!is_import("// use tidegate_routing::topic;"));
}
