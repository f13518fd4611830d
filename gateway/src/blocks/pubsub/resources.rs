//! Brings topics and subscriptions to what resource files declare.
//!
//! Where this gateway has its backbone for itself, the files are the whole truth about what files declared: a subscription
//! whose declaration is gone ends. On a broker other gateways have files too, which cannot be seen from here, so a gateway
//! speaks for the files of its own folder only, and even for those it ends nothing: the same folder on another machine may
//! still hold the file, or hold it no longer because a rollout is half done.
//!
//! | on a broker | then |
//! |---|---|
//! | a file of this gateway declares what nothing or a request declared | it is created or changed, and belongs to the file |
//! | it declares the same as a file of another gateway does | nothing: the other file keeps it |
//! | it declares something else than a file of another gateway does | what was applied last is in force, and the difference is told |
//! | a file of this gateway's folder declares it no longer | it goes on, and belongs to the API from now on |
//! | a file of another folder declares it | it is not touched |

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use bytestring::ByteString;
use tidegate_backbone::ErrorKind;
use tidegate_backbone::catalogue::{
    ChangeError, Foreign, HandshakeSpec, Mode, OnExhausted, Order, Origin, RequestSpec, Retention, Start, Subscription,
    SubscriptionSpec, TopicSpec,
};
use tidegate_backbone::consume::Moment;
use tidegate_backbone::slot::CommitError;
use tidegate_schemas::limits;
use tidegate_schemas::webhook::SigningKey;
use tracing::{info, warn};

use super::PubSub;
use crate::sink::Target;
use tidegate_resources::{self as resources, Resources, StartFrom};

/// Why one resource could not be brought about.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Its target cannot be called as it is declared.
    #[error("{0}")]
    Target(String),
}

/// What a set of files could not be brought to, and where that resource is written.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {kind} {name}: {source}")]
pub struct ApplyError {
    kind: &'static str,
    name: String,
    /// The file, with line and column where they are known.
    place: String,
    /// Whether it is about a broker beside the backbone.
    on_broker: bool,
    source: Cause,
}

impl ApplyError {
    /// Whether the same may succeed in a moment: another gateway changed the same, or the broker or the owner of a slot is away.
    pub fn may_pass(&self) -> bool {
        let Cause::Change(error) = &self.source else { return false };
        match error {
            ChangeError::Exists { .. } | ChangeError::Deleting { .. } => true,
            ChangeError::Commit(error) => !matches!(
                error,
                CommitError::RepeatedKey { .. }
                    | CommitError::TooLarge { .. }
                    | CommitError::DataLoss { .. }
                    | CommitError::Closed
            ),
            ChangeError::Broker(error) => matches!(
                error.kind(),
                ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Backpressure { .. } | ErrorKind::Fenced { .. }
            ),
            _ => false,
        }
    }

    /// Whether it is a topic of a broker beside the backbone that cannot be attached for now, or a subscription to one: nothing
    /// else waits for it.
    pub fn waits_for_broker(&self) -> bool {
        self.on_broker && self.may_pass()
    }

    fn new(kind: &'static str, name: &str, origin: &resources::Origin, source: impl Into<Cause>) -> Self {
        let place = format!("{}:{}", origin.file, origin.place);
        Self { kind, name: name.to_owned(), place, on_broker: false, source: source.into() }
    }
}

impl PubSub {
    /// Creates and changes what the files declare, ends subscriptions whose declaration is gone from them, and lets the
    /// deliveries of every subscription go out. What stayed as it was is not touched.
    ///
    /// `folder` is where the files lie that this gateway reads, as it was given.
    pub async fn apply(&self, resources: &Resources, folder: Option<&Path>) -> Result<(), Vec<ApplyError>> {
        let _writing = self.0.writing.lock().await;
        let mut errors = Vec::new();
        let mut specs = Vec::with_capacity(resources.topics.len());
        for topic in &resources.topics {
            let mut spec = self.topic_spec(topic, Origin::File(topic.origin.file.to_string()));
            if let Some(existing) = self.topic(&topic.name) {
                spec.origin = self.kept_origin(&existing.spec.origin, spec.origin.clone(), folder, |origin| {
                    existing.spec == TopicSpec { origin, ..spec.clone() }
                });
            }
            specs.push(spec);
        }
        let outcomes = self.0.consume.create_topics(specs).await;
        let mut awaited = HashSet::new();
        for (topic, outcome) in resources.topics.iter().zip(outcomes) {
            if let Err(source) = outcome {
                let error = ApplyError::new("Topic", topic.name.as_str(), &topic.origin, source);
                let on_broker = topic.attach.as_ref().is_some_and(|attach| attach.broker.is_some());
                let error = ApplyError { on_broker, ..error };
                if error.waits_for_broker() {
                    awaited.insert(topic.name.clone());
                }
                errors.push(error);
            }
        }
        *self.0.awaited.lock() = awaited;
        let declared: HashSet<&str> =
            resources.subscriptions.iter().map(|subscription| subscription.name.as_str()).collect();
        for subscription in self.subscriptions() {
            let spec = &subscription.spec;
            let Origin::File(file) = &spec.origin else { continue };
            if declared.contains(&*spec.name) {
                continue;
            }
            if let Err(source) = self.undeclare(&subscription, file, folder).await {
                let name = spec.name.to_string();
                errors.push(ApplyError {
                    kind: "Subscription",
                    name,
                    place: file.clone(),
                    on_broker: false,
                    source: source.into(),
                });
            }
        }
        // Those that begin now begin at the same moment.
        let mut moment = Moment::default();
        for subscription in &resources.subscriptions {
            if let Err(source) = self.declare(subscription, folder, &mut moment).await {
                let error = ApplyError::new("Subscription", &subscription.name, &subscription.origin, source);
                errors.push(ApplyError { on_broker: self.reads_other_broker(subscription), ..error });
            }
        }
        for subscription in self.subscriptions() {
            self.deliver(&subscription);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The file that declares a subscription is gone, or declares it no longer.
    async fn undeclare(
        &self,
        subscription: &Subscription,
        file: &str,
        folder: Option<&Path>,
    ) -> Result<(), ChangeError> {
        let spec = &subscription.spec;
        if !self.is_shared() {
            info!(subscription = %spec.name, file, "a subscription ends: its file no longer declares it");
            return self.0.consume.remove_subscription(&spec.name).await;
        }
        if !is_of(file, folder) {
            return Ok(());
        }
        warn!(subscription = %spec.name, file,
            "the file no longer declares the subscription, which goes on and belongs to the API from now on; \
             `tidegate subscriptions delete` ends it");
        self.0.consume.update_subscription(SubscriptionSpec { origin: Origin::Api, ..spec.clone() }).await?;
        Ok(())
    }

    /// Whether other gateways may share the backbone.
    pub fn is_shared(&self) -> bool {
        !self.0.log.capability().exclusive
    }

    /// Who owns what this gateway's file `wanted` declares and `existing` owns already. `same_with` tells whether both are
    /// the same but for the owner.
    fn kept_origin(
        &self,
        existing: &Origin,
        wanted: Origin,
        folder: Option<&Path>,
        same_with: impl Fn(Origin) -> bool,
    ) -> Origin {
        match existing {
            Origin::File(file) if self.is_shared() && !is_of(file, folder) => {
                if same_with(existing.clone()) {
                    return existing.clone();
                }
                if let Origin::File(here) = &wanted {
                    warn!(
                        here,
                        other = file,
                        "two gateways declare the same name and differ; what is applied last counts"
                    );
                }
                wanted
            }
            _ => wanted,
        }
    }

    async fn declare(
        &self,
        declared: &resources::Subscription,
        folder: Option<&Path>,
        moment: &mut Moment,
    ) -> Result<(), Cause> {
        let delivery = &declared.delivery;
        let mut spec = spec_of(declared, Origin::File(declared.origin.file.to_string()));
        let name = spec.name.clone();
        let (sink, request) = (&declared.sink, &declared.request);
        let known = self.0.targets.lock().get(&name).is_some_and(|target| target.is_declared_as(sink, request));
        if !known {
            let target = Target::declared(sink, request).map_err(Cause::Target)?;
            self.0.targets.lock().insert(name.clone(), Arc::new(target));
        }
        if let Some(existing) = self.subscription(&name) {
            spec.origin = self.kept_origin(&existing.spec.origin, spec.origin.clone(), folder, |origin| {
                existing.spec == SubscriptionSpec { origin, ..spec.clone() }
            });
            let changed = existing.spec != spec;
            self.0.consume.update_subscription(spec).await?;
            if changed {
                info!(subscription = %name, sink = %declared.sink, "a subscription goes on with what its file says now");
            }
        } else {
            self.0.consume.create_subscription_at(spec, moment).await?;
            info!(subscription = %name, sink = %declared.sink, from = ?delivery.from, "a subscription begins");
        }
        Ok(())
    }

    /// Whether a declared subscription reads a topic of a broker beside the backbone. Where a new one begins there is not known
    /// while that is away.
    fn reads_other_broker(&self, declared: &resources::Subscription) -> bool {
        self.topics().iter().filter(|topic| topic.spec.broker.is_some()).any(|topic| {
            let mut patterns = declared.topics.iter();
            patterns.any(|pattern| pattern.matches(&topic.spec.name))
        })
    }

    /// What the catalogue keeps of a declared topic.
    pub(super) fn topic_spec(&self, topic: &resources::Topic, origin: Origin) -> TopicSpec {
        TopicSpec {
            name: topic.name.clone(),
            partitions: topic.partitions.map_or_else(|| self.partitions_default(), std::num::NonZeroU32::get),
            key_from: topic.key_from,
            dedupe_window: topic.dedupe_window.unwrap_or(limits::DEDUPE_WINDOW),
            // What is attached is kept by whoever owns it.
            retention: match topic.attach {
                Some(_) => Retention::default(),
                None => Retention { age: topic.retention.age, bytes: topic.retention.bytes },
            },
            attached: topic.attach.as_ref().map(|attach| ByteString::from(attach.name.as_str())),
            broker: topic.attach.as_ref().and_then(|attach| Some(ByteString::from(attach.broker.as_deref()?))),
            foreign: match topic.foreign {
                resources::Foreign::Wrap => Foreign::Wrap,
                resources::Foreign::DeadLetter => Foreign::DeadLetter,
            },
            origin,
        }
    }
}

/// Whether a file is one of a folder, by their names as they were given.
fn is_of(file: &str, folder: Option<&Path>) -> bool {
    let (file, Some(folder)) = (Path::new(file), folder) else { return false };
    file == folder || file.parent() == Some(folder)
}

/// Where a declared subscription begins.
fn start_of(declared: &resources::Subscription) -> Start {
    match declared.delivery.from {
        StartFrom::Earliest => Start::Earliest,
        StartFrom::Latest => Start::Latest,
        StartFrom::Time(time) => Start::Time(time),
    }
}

/// What the catalogue keeps of how requests are made: everything but the values of secrets.
fn request_of(declared: &resources::Subscription) -> RequestSpec {
    let request = &declared.request;
    RequestSpec {
        mode: match request.mode {
            resources::Mode::Binary => Mode::Binary,
            resources::Mode::Structured => Mode::Structured,
        },
        signatures: request
            .signing
            .iter()
            // Each was a key when the file was read.
            .filter_map(|secret| SigningKey::parse(secret.expose()).ok())
            .map(|key| key.scheme().as_str().to_owned())
            .collect(),
        headers: request.headers.iter().map(|header| header.name.to_string()).collect(),
        handshake: request
            .handshake
            .as_ref()
            .map(|handshake| HandshakeSpec { origin: handshake.origin.clone(), rate: handshake.rate }),
        ca: request.trust.as_ref().map(|authorities| authorities.file.clone()),
    }
}

/// What a declared subscription asks for, as the catalogue keeps it.
pub(super) fn spec_of(declared: &resources::Subscription, origin: Origin) -> SubscriptionSpec {
    let delivery = &declared.delivery;
    SubscriptionSpec {
        name: ByteString::from(declared.name.as_str()),
        topics: declared.topics.clone(),
        filters: declared.filters.clone(),
        sink: declared.sink.to_string(),
        request: request_of(declared),
        from: start_of(declared),
        order: match delivery.order {
            resources::Order::Key => Order::Key,
            resources::Order::None => Order::None,
        },
        max_in_flight: delivery.max_in_flight,
        timeout: delivery.timeout,
        retry: delivery.retry,
        on_exhausted: match delivery.on_exhausted {
            resources::OnExhausted::Continue => OnExhausted::Continue,
            resources::OnExhausted::PauseKey => OnExhausted::PauseKey,
        },
        reply_to: declared.reply_to.clone(),
        dead_letter_topic: delivery.dead_letter_topic.clone(),
        origin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_speaks_for_the_files_of_its_folder() {
        for (file, folder, speaks) in [
            ("res/a.yaml", Some("res"), true),
            ("/etc/tidegate/a.yaml", Some("/etc/tidegate/"), true),
            ("a.yaml", Some("a.yaml"), true),
            ("res/a.yaml", Some("other"), false),
            ("res/deeper/a.yaml", Some("res"), false),
            ("res/a.yaml", None, false),
        ] {
            assert_eq!(is_of(file, folder.map(Path::new)), speaks, "{file} {folder:?}");
        }
    }
}
