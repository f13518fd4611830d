//! Resources: what users write in YAML to tell the gateway what to do.
//!
//! [`load`] reads files and folders and gives either everything or every fault, each with its file, line, column, what
//! is wrong and how to mend it; a set with one fault changes nothing. [`check`] reads the same way and reports, for the
//! command `tidegate check`.
//!
//! What a resource means is decided when it is read: topic names are canonical, filters parsed, durations and sizes are
//! numbers, defaults filled in. A key with a meaning that this version does not have is refused and never ignored.
//! `${env:NAME}` in a text is the value of that variable; such a value never appears in a diagnostic.

mod app;
mod binding;
mod broker;
mod check;
pub mod config;
mod cross;
mod cross_bindings;
mod diagnostic;
pub(crate) mod document;
mod files;
pub(crate) mod nearest;
mod object;
mod quantity;
pub(crate) mod reader;
mod request;
mod secret;
mod sink;
mod subscription;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_bindings;
#[cfg(test)]
mod tests_of_brokers;
mod topic;
pub(crate) mod yaml;

use std::path::PathBuf;
use std::sync::Arc;

use tidegate_routing::TopicName;

pub use app::{App, Health};
pub use binding::{Binding, Direction, Input, Key, OnRefused, Output, RoutingKey, Source};
pub use broker::Broker;
pub use check::{Report, check};
pub use diagnostic::{Diagnostic, Place, Severity};
pub use object::{Id, ObjectFault, subscription_of_object};
pub use quantity::{format_duration, format_size, parse_duration, parse_size};
pub use reader::Variables;
pub use request::{Authorities, Handshake, Header, Mode, Request};
pub use secret::Secret;
pub use sink::{HttpSink, Sink};
pub use subscription::{Delivery, OnExhausted, Order, StartFrom, Subscription};
pub use topic::{Attach, Foreign, Retention, Topic, parse_attached};

pub(crate) use diagnostic::Severity::Error as ErrorSeverity;
pub(crate) use document::{Collected, read_documents};
pub(crate) use files::read_text;

/// The `apiVersion` of every resource of ours.
pub const API_VERSION: &str = "tidegate.dev/v1";

/// Where a resource is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Where its name stands.
    pub place: Place,
}

/// All resources of a set of files, in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Which events go where.
    pub subscriptions: Vec<Subscription>,
    /// How topics are kept.
    pub topics: Vec<Topic>,
    /// The applications.
    pub apps: Vec<App>,
    /// The brokers beside the backbone.
    pub brokers: Vec<Broker>,
    /// Queues and exchanges of those.
    pub bindings: Vec<Binding>,
    /// What is not wrong, and should be known.
    pub warnings: Vec<Diagnostic>,
}

impl Resources {
    /// The dead-letter topics of all subscriptions, which no wildcard reaches whatever their names are.
    pub fn dead_letter_topics(&self) -> impl Iterator<Item = &TopicName> {
        self.subscriptions.iter().map(|subscription| &subscription.delivery.dead_letter_topic)
    }
}

/// The value of a variable of the process, for [`load`] and [`check`].
pub fn process_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads resources. A path is a file, or a folder of which every `*.yaml` and `*.yml` is read in the order of their
/// names, without those that begin with a `.` and without folders below it.
///
/// Blocks on files, so call it where that is allowed. The error holds every fault, and the warnings among them, in the
/// order of the files.
pub fn load(paths: &[PathBuf], variables: &Variables<'_>) -> Result<Resources, Vec<Diagnostic>> {
    let (collected, diagnostics, _) = document::read_paths(paths, variables, false);
    settled(collected, diagnostics)
}

/// Reads resources from a text, named `file` in what is said of it, as [`load`] does from files.
pub fn parse(file: &str, text: &str, variables: &Variables<'_>) -> Result<Resources, Vec<Diagnostic>> {
    let mut collected = Collected::default();
    let mut diagnostics = read_documents(&file.into(), text, variables, false, &mut collected);
    diagnostics.extend(cross::check(&collected));
    diagnostics.sort_by_key(|diagnostic| diagnostic.place);
    settled(collected, diagnostics)
}

/// Reads resources from several texts that somebody sent, each with the name of its file, as [`load`] does from files. No file
/// that they name is read: what stands in the files of this machine is not theirs to find out.
pub fn parse_all(files: &[(Arc<str>, &str)], variables: &Variables<'_>) -> Result<Resources, Vec<Diagnostic>> {
    let mut collected = Collected { texts_only: true, ..Collected::default() };
    let mut diagnostics = Vec::new();
    for (file, text) in files {
        diagnostics.extend(read_documents(file, text, variables, false, &mut collected));
    }
    diagnostics.extend(cross::check(&collected));
    let order = |file: &Arc<str>| files.iter().position(|(name, _)| name == file);
    diagnostics.sort_by_key(|diagnostic| (order(&diagnostic.file), diagnostic.place));
    settled(collected, diagnostics)
}

/// The files that some paths stand for, as [`load`] finds them, each with its text; or everything that hinders reading.
pub fn read_files(paths: &[PathBuf]) -> Result<Vec<(Arc<str>, String)>, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let mut texts = Vec::new();
    for path in files::find(paths, &mut diagnostics) {
        match read_text(&path) {
            Ok(text) => texts.push((files::shown(&path), text)),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    if diagnostics.is_empty() { Ok(texts) } else { Err(diagnostics) }
}

/// Everything, or every fault.
fn settled(collected: Collected, diagnostics: Vec<Diagnostic>) -> Result<Resources, Vec<Diagnostic>> {
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(diagnostics);
    }
    Ok(Resources {
        subscriptions: collected.subscriptions.into_iter().map(|(subscription, _)| subscription).collect(),
        topics: collected.topics.into_iter().map(|(topic, _)| topic).collect(),
        apps: collected.apps,
        brokers: collected.brokers,
        bindings: collected.bindings.into_iter().map(|(binding, _)| binding).collect(),
        warnings: diagnostics,
    })
}
