//! The technology compatibility kit of CESQL: cases that the authors of the specification wrote, and some with functions
//! of one's own.

#![expect(clippy::print_stdout, reason = "a run without the cases must say so")]
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use granit_parser::{Event as YamlEvent, Parser, ScalarStyle};
use serde_json::{Map, json};
use tidegate_routing::cesql::{ErrorKind, Evaluation, Expression, Function, Functions, Parameter, Type, Value};
use tidegate_routing::{Filter, Matcher, SubscriptionId, TopicName, explain};
use tidegate_schemas::{Event, Limits};

/// Cases of the kit that contradict the text of the specification, with the clause that they contradict.
const BELIEVED_WRONG: [(&str, &str); 1] = [(
    "not_operator.yaml: Invalid int cast",
    "`NOT 10`: 3.7 casts an Integer to a Boolean, and every one but 0 is `true`, as the kit's own `BOOL(100)` says; and had \
     the cast failed, 3.3 and 3.4 would give the zero value of `NOT`, which is `false`",
)];

/// YAML in which a scalar keeps its text, since `TRUE` as an expression is not `true`.
#[derive(Clone, Debug)]
enum Yaml {
    Scalar { text: String, plain: bool },
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    fn get(&self, key: &str) -> Option<&Yaml> {
        match self {
            Yaml::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    fn text(&self) -> &str {
        match self {
            Yaml::Scalar { text, .. } => text,
            other => panic!("{other:?}"),
        }
    }

    fn value(&self) -> Value<'static> {
        match self {
            Yaml::Scalar { text, plain: true } if text.eq_ignore_ascii_case("true") => Value::Boolean(true),
            Yaml::Scalar { text, plain: true } if text.eq_ignore_ascii_case("false") => Value::Boolean(false),
            Yaml::Scalar { text, plain: true } if text.parse::<i32>().is_ok() => Value::Integer(text.parse().unwrap()),
            other => Value::String(other.text().to_owned().into()),
        }
    }
}

fn read_yaml(text: &str) -> Yaml {
    let mut parser = Parser::new_from_str(text);
    let mut next = || loop {
        match parser.next_event().expect("the document ends").unwrap().0 {
            YamlEvent::StreamStart | YamlEvent::DocumentStart(..) => {}
            event => return event,
        }
    };
    fn node<'y>(event: YamlEvent<'y>, next: &mut impl FnMut() -> YamlEvent<'y>) -> Yaml {
        match event {
            YamlEvent::Scalar(text, style, ..) => {
                Yaml::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            YamlEvent::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match next() {
                        YamlEvent::SequenceEnd => return Yaml::List(items),
                        event => items.push(node(event, next)),
                    }
                }
            }
            YamlEvent::MappingStart(..) => {
                let mut entries = Vec::new();
                loop {
                    match next() {
                        YamlEvent::MappingEnd => return Yaml::Map(entries),
                        key => {
                            let key = node(key, next).text().to_owned();
                            let value = next();
                            entries.push((key, node(value, next)));
                        }
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let first = next();
    node(first, &mut next)
}

/// The folder with the cases, or nothing where it is not there.
fn folder() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let folder = std::env::var_os("TIDEGATE_TESTDATA").map_or_else(|| root.join("../shared/testdata"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder.join("cesql"));
    }
    println!("{} is not there: the cases by others are not run", folder.display());
    None
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn event(case: &Yaml) -> Event {
    let mut object = Map::new();
    if case.get("event").is_none() {
        let base = json!({"specversion": "1.0", "id": "id", "source": "https://example.com/source", "type": "com.example.type"});
        object.extend(base.as_object().unwrap().clone());
    }
    for part in ["event", "eventOverrides"] {
        let Some(Yaml::Map(entries)) = case.get(part) else { continue };
        for (name, value) in entries {
            let value = match value.value() {
                Value::Boolean(flag) => json!(flag),
                Value::Integer(number) => json!(number),
                Value::String(text) => json!(text),
            };
            object.insert(name.clone(), value);
        }
    }
    let text = serde_json::to_vec(&object).unwrap();
    tidegate_schemas::json::read(Bytes::from(text), &Limits::default()).unwrap()
}

fn kind(name: &str) -> ErrorKind {
    match name {
        "parse" => ErrorKind::Parse,
        "math" => ErrorKind::Math,
        "cast" => ErrorKind::Cast,
        "missingAttribute" => ErrorKind::MissingAttribute,
        "missingFunction" => ErrorKind::MissingFunction,
        "functionEvaluation" => ErrorKind::FunctionEvaluation,
        "generic" => ErrorKind::Generic,
        other => panic!("{other}"),
    }
}

/// Runs one case, or says what is wrong with its outcome.
fn run(case: &Yaml, functions: &Functions) -> Result<(), String> {
    let text = case.get("expression").expect("every case has an expression").text();
    let expected_value = case.get("result").map(Yaml::value);
    let expected_errors: Vec<_> = case.get("error").map(|name| kind(name.text())).into_iter().collect();
    let expression = match Expression::parse_with(text, functions) {
        Ok(expression) => expression,
        Err(error) if expected_errors == [error.kind()] => return Ok(()),
        Err(error) => return Err(format!("`{text}`: {error}")),
    };
    let event = event(case);
    let Evaluation { value, errors } = expression.evaluate(&event);
    let errors: Vec<_> = errors.iter().map(|error| error.kind).collect();
    if expected_value.as_ref().is_some_and(|expected| *expected != value) || errors != expected_errors {
        return Err(format!("`{text}` gave {value:?} {errors:?}, expected {expected_value:?} {expected_errors:?}"));
    }
    let passes = value == Value::Boolean(true) && errors.is_empty();
    if expression.matches(&event) != passes {
        return Err(format!("`{text}`: evaluation and filter differ"));
    }
    let (topic, filters) = (TopicName::parse("t").unwrap(), [Filter::Sql(expression.clone())]);
    let mut found = Vec::new();
    Matcher::build([(SubscriptionId(0), &[topic.clone().into()][..], &filters[..])])
        .matches(&topic, &event, &mut found);
    if explain(&filters, &event).matched != passes || found.is_empty() == passes {
        return Err(format!("`{text}`: the filter differs from its explanation or the index"));
    }
    let printed = expression.to_string();
    match Expression::parse_with(&printed, functions) {
        Ok(again) if again == expression => Ok(()),
        other => Err(format!("`{text}` is printed as `{printed}`, which is read as {other:?}")),
    }
}

/// Runs all cases of the files and gives how many there were, with what went wrong by the case.
fn run_all(files: &[PathBuf], functions: &Functions) -> (usize, BTreeMap<String, String>) {
    let (mut count, mut faults) = (0, BTreeMap::new());
    for path in files {
        let file = path.file_name().unwrap().to_string_lossy();
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let Some(Yaml::List(cases)) = read_yaml(&text).get("tests").cloned() else { panic!("{file} has no cases") };
        assert!(!cases.is_empty(), "{file}");
        for case in &cases {
            count += 1;
            if let Err(fault) = run(case, functions) {
                faults.insert(format!("{file}: {}", case.get("name").unwrap().text()), fault);
            }
        }
    }
    (count, faults)
}

#[test]
fn the_compatibility_kit() {
    let Some(folder) = folder() else { return };
    let files = files(&folder);
    let (count, mut faults) = run_all(&files, Functions::builtin());
    assert!(files.len() >= 18 && count >= 275, "only {count} cases in {} files", files.len());
    for (case, clause) in BELIEVED_WRONG {
        assert!(faults.remove(case).is_some(), "{case} is listed as wrong and passes: {clause}");
    }
    assert_eq!(faults, BTreeMap::new());
}

#[test]
fn functions_of_ones_own() {
    let Some(folder) = folder() else { return };
    let text = Parameter::Of(Type::String);
    let mut functions = Functions::default();
    let prefix = Function::new("HASPREFIX", &[text, text], Type::Boolean, |arguments| {
        let (text, prefix) = (arguments[0].take().into_text(), arguments[1].take().into_text());
        Ok(Value::Boolean(text.starts_with(&*prefix)))
    });
    let concatenation = Function::new("konkat", &[], Type::String, |arguments| {
        Ok(Value::String(arguments.iter().map(ToString::to_string).collect::<String>().into()))
    });
    functions.register(prefix).unwrap();
    functions.register(concatenation.variadic(text)).unwrap();
    let files = files(&folder.join("extra"));
    let (count, faults) = run_all(&files, &functions);
    assert!(count >= 8, "only {count} cases");
    assert_eq!(faults, BTreeMap::new());
    // Without the functions every case fails, so they were what passed.
    assert_eq!(run_all(&files, Functions::builtin()).1.len(), count);
}
