//! From files to documents to resources.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_routing::TopicName;
use tidegate_routing::topic::TopicError;

use super::app::{self, App};
use super::binding::{self, Binding};
use super::broker::{self, Broker};
use super::cross;
use super::diagnostic::{Diagnostic, Place};
use super::files;
use super::nearest::nearest;
use super::reader::{Field, Fields, Reader, Variables};
use super::subscription::{self, Subscription};
use super::topic::{self, Topic};
use super::yaml;
use super::{API_VERSION, Origin};
use crate::config::{self, Gateway};

const KINDS: [&str; 6] = ["Subscription", "Topic", "App", "Broker", "Binding", "Gateway"];

/// A topic's name where it is written in a file.
#[derive(Clone, Debug)]
pub(crate) struct Mention {
    pub(crate) topic: TopicName,
    /// The text as it was written, which holds no value of a variable.
    pub(crate) written: String,
    pub(crate) place: Place,
}

/// What was read so far.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) subscriptions: Vec<(Subscription, subscription::Sites)>,
    pub(crate) topics: Vec<(Topic, topic::Sites)>,
    pub(crate) apps: Vec<App>,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) bindings: Vec<(Binding, binding::Sites)>,
    pub(crate) gateways: Vec<Gateway>,
    /// Files that are named in the texts are not read.
    pub(crate) texts_only: bool,
    /// Every name with its kind, to find those that are used twice.
    pub(crate) names: HashMap<(&'static str, String), Origin>,
}

impl Collected {
    pub(crate) fn len(&self) -> usize {
        let declared = self.subscriptions.len() + self.topics.len() + self.apps.len();
        declared + self.brokers.len() + self.bindings.len() + self.gateways.len()
    }
}

/// The names of resources: what the reader of a kind gets beside its `spec`.
pub(crate) struct Header<'n> {
    pub(crate) name: String,
    pub(crate) name_place: Place,
    pub(crate) origin: Origin,
    pub(crate) spec: Option<Field<'n>>,
    /// Where the document stands, for what is missing in it.
    pub(crate) place: Place,
}

impl<'n> Header<'n> {
    /// The `spec`, which must be there, with these keys.
    pub(crate) fn required_spec(&self, reader: &mut Reader<'_>, known: &[&str]) -> Option<Fields<'n>> {
        match &self.spec {
            Some(spec) => reader.map(spec, known),
            None => {
                reader.fault(self.place, "`spec` is missing", "add a `spec:` with the settings below it");
                None
            }
        }
    }
}

/// Reads all files, all documents, and what holds between them. Gives what could be read, every diagnostic in the order
/// of the files, and how many files there were.
pub(crate) fn read_paths(
    paths: &[PathBuf],
    variables: &Variables<'_>,
    allow_gateway: bool,
) -> (Collected, Vec<Diagnostic>, usize) {
    let mut collected = Collected::default();
    let mut diagnostics = Vec::new();
    let files = files::find(paths, &mut diagnostics);
    let mut order: HashMap<Arc<str>, usize> = HashMap::new();
    for (index, path) in files.iter().enumerate() {
        let file = files::shown(path);
        order.entry(Arc::clone(&file)).or_insert(index);
        match files::read_text(path) {
            Ok(text) => diagnostics.extend(read_documents(&file, &text, variables, allow_gateway, &mut collected)),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    diagnostics.extend(cross::check(&collected));
    diagnostics.sort_by_key(|diagnostic| (order.get(&diagnostic.file).copied(), diagnostic.place));
    (collected, diagnostics, files.len())
}

/// Reads the documents of one file into what was read before.
pub(crate) fn read_documents(
    file: &Arc<str>,
    text: &str,
    variables: &Variables<'_>,
    allow_gateway: bool,
    collected: &mut Collected,
) -> Vec<Diagnostic> {
    let mut reader = Reader::new(Arc::clone(file), variables);
    reader.reads_files = !collected.texts_only;
    let documents = yaml::parse(file, text, &mut reader.diagnostics);
    for document in &documents {
        read_document(&mut reader, &Field::root(document), allow_gateway, collected);
    }
    reader.diagnostics
}

fn read_document(
    reader: &mut Reader<'_>,
    root: &Field<'_>,
    allow_gateway: bool,
    collected: &mut Collected,
) -> Option<()> {
    // Documents of other kinds have other keys: which ones are known is not known before the kind is.
    let head = reader.open_map(root)?;
    let api_version_field = head.require(reader, "apiVersion", API_VERSION);
    let kind_field = head.require(reader, "kind", "Subscription");
    let api_version = api_version_field.as_ref().and_then(|field| reader.text(field));
    let kind_text = kind_field.as_ref().and_then(|field| reader.text(field));
    let (api_version_field, kind_field) = (api_version_field?, kind_field?);
    let (api_version, kind_text) = (api_version?, kind_text?);
    if api_version.written.starts_with("dapr.io/") {
        let what =
            format!("the kind `{}` of `{}` is not available in this version", kind_text.written, api_version.written);
        reader.fault(kind_field.node.place, what, format!("use the kinds of `{API_VERSION}`, or remove the document"));
        return None;
    }
    if api_version.value != API_VERSION {
        let what = format!("`apiVersion` is `{}`, which is not known", api_version.written);
        reader.fault(api_version_field.node.place, what, format!("write `apiVersion: {API_VERSION}`"));
        return None;
    }
    let Some(kind) = KINDS.into_iter().find(|kind| *kind == kind_text.value) else {
        let mend = nearest(&kind_text.written, KINDS)
            .map_or_else(|| format!("known: {}", KINDS.join(", ")), |near| format!("did you mean `{near}`?"));
        reader.fault(kind_field.node.place, format!("there is no kind `{}`", kind_text.written), mend);
        return None;
    };
    reader.map(root, &["apiVersion", "kind", "metadata", "spec"]);
    if kind == "Gateway" && !allow_gateway {
        reader.fault(
            kind_field.node.place,
            "a `Gateway` is the configuration of one process and no resource",
            "move it into a file of its own and name that with `serve --config`",
        );
        return None;
    }
    let (name, name_place) = read_name(reader, &head, kind)?;
    let origin = Origin { file: Arc::clone(&reader.file), place: name_place };
    if let Some(first) = collected.names.get(&(kind, name.clone())) {
        let what = format!("there are two {kind}s named `{name}`, the other one at {}:{}", first.file, first.place);
        reader.fault(name_place, what, "rename or remove one");
    } else {
        collected.names.insert((kind, name.clone()), origin.clone());
    }
    let header = Header { name, name_place, origin, spec: head.get("spec"), place: root.node.place };
    match kind {
        "Subscription" => collected.subscriptions.extend(subscription::read(reader, header)),
        "Topic" => collected.topics.extend(topic::read(reader, header)),
        "App" => collected.apps.extend(app::read(reader, header)),
        "Binding" => collected.bindings.extend(binding::read(reader, header)),
        "Broker" => collected.brokers.extend(broker::read(reader, header)),
        _ => collected.gateways.extend(config::read(reader, &header)),
    }
    Some(())
}

/// The name of a subscription, of which a dead-letter topic can be made.
pub(crate) fn subscription_name(text: &str) -> Result<TopicName, TopicError> {
    let name = TopicName::parse(text)?;
    TopicName::dead_letter_of(name.as_str())?;
    Ok(name)
}

/// `metadata.name`. A name takes no variables, because it is an identity and the same on every machine; a `Gateway` is
/// one to a file and needs none.
fn read_name(reader: &mut Reader<'_>, head: &Fields<'_>, kind: &str) -> Option<(String, Place)> {
    let metadata = match (head.get("metadata"), kind) {
        (Some(metadata), _) => reader.map(&metadata, &["name"])?,
        (None, "Gateway") => return Some((String::new(), Place { line: 1, column: 1 })),
        (None, _) => {
            head.require(reader, "metadata", "{name: my-name}");
            return None;
        }
    };
    let field = metadata.require(reader, "name", "my-name")?;
    let text = reader.text(&field)?;
    if text.is_substituted() {
        reader.fault(field.node.place, format!("`{}` takes no variables", field.path), "write the name out");
        return None;
    }
    // A topic's name is one for all ways in, so `/` is read as `.` here too. Other names are parts of topic names
    // (`dead.NAME`) and of paths of the API.
    let canonical = match kind {
        "Topic" => TopicName::from_edge(text.value.as_str()),
        "Subscription" => subscription_name(&text.value),
        _ => TopicName::parse(text.value.as_str()),
    };
    match canonical {
        Ok(name) => Some((name.to_string(), field.node.place)),
        Err(reason) => {
            reader.fault_of_text(&field, &text, &reason);
            None
        }
    }
}
