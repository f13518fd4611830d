//! What requests change: topics and subscriptions that no file owns.

use std::sync::Arc;

use bytestring::ByteString;
use tidegate_backbone::catalogue::{ChangeError, Origin, Subscription, Topic, TopicSpec};
use tidegate_resources::{self as resources, Resources, Sink};
use tidegate_routing::TopicName;
use tracing::info;
use xxhash_rust::xxh3::xxh3_64;

use super::PubSub;
use super::resources::spec_of;

/// Why a request changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file declares it.
    #[error("the {what} {name} belongs to {file} and changes only there")]
    OwnedByFile {
        /// `topic` or `subscription`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The file.
        file: String,
    },
    /// The name belongs to the gateway.
    #[error("names like {0} belong to the gateway; choose another")]
    Reserved(TopicName),
    /// The sink has an address that requests may not make the gateway call.
    #[error(
        "the sink's host {0} is not public, and subscriptions that requests create call public addresses only; declare the \
         subscription in a file, or set `security.privateSinks: true` in the gateway's configuration"
    )]
    PrivateSink(String),
    /// It needs secrets or certificates, which only files name.
    #[error(
        "the subscription {0} has signing, headers or tls, which may name secrets and files of the gateway; declare it in a          file"
    )]
    NeedsFile(String),
    /// What is there is not what the request expects.
    #[error("{0}")]
    Unexpected(&'static str),
    /// The catalogue refuses.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// What a request says of the subscription that it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// It is there and has one of these tags ([`PubSub::tag`]).
    pub tags: Option<Vec<String>>,
    /// It is there.
    pub present: bool,
    /// It is not there.
    pub absent: bool,
}

impl Expected {
    fn check(&self, existing: Option<&Subscription>) -> Result<(), WriteError> {
        let unexpected = |reason| Err(WriteError::Unexpected(reason));
        match existing {
            Some(_) if self.absent => unexpected("the subscription is there already"),
            None if self.present || self.tags.is_some() => unexpected("the subscription is not there"),
            Some(existing) if self.tags.as_ref().is_some_and(|tags| !tags.contains(&PubSub::tag(existing))) => {
                unexpected("the subscription was changed meanwhile; read it again and send its ETag")
            }
            _ => Ok(()),
        }
    }
}

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there.
    Created,
    /// It was otherwise.
    Changed,
    /// It was so already.
    Unchanged,
}

impl PubSub {
    /// What tells one state of what a subscription asks for from every other.
    pub fn tag(subscription: &Subscription) -> String {
        let spec = serde_json::to_vec(&subscription.spec).unwrap_or_default();
        format!("{:016x}", xxh3_64(&spec) ^ subscription.uid)
    }

    /// Creates a subscription, or brings the one of that name to what is asked.
    pub async fn put_subscription(
        &self,
        wanted: &resources::Subscription,
        expected: &Expected,
    ) -> Result<(Arc<Subscription>, Outcome), WriteError> {
        let _writing = self.0.writing.lock().await;
        let existing = self.check_subscription(wanted, expected)?;
        let spec = spec_of(wanted, Origin::Api);
        let (name, sink) = (spec.name.clone(), spec.sink.clone());
        let (subscription, outcome) = match existing {
            Some(existing) if existing.spec == spec => (existing, Outcome::Unchanged),
            Some(_) => (self.0.consume.update_subscription(spec).await?, Outcome::Changed),
            None => (self.0.consume.create_subscription(spec).await?, Outcome::Created),
        };
        if outcome != Outcome::Unchanged {
            info!(subscription = %name, sink, ?outcome, "a request changed a subscription");
        }
        self.deliver(&subscription);
        Ok((subscription, outcome))
    }

    fn check_subscription(
        &self,
        wanted: &resources::Subscription,
        expected: &Expected,
    ) -> Result<Option<Arc<Subscription>>, WriteError> {
        if let Sink::Http(sink) = &wanted.sink
            && let Some(host) = sink.uri().host()
            && !self.0.options.request_sinks.allows_host(host)
        {
            return Err(WriteError::PrivateSink(host.to_owned()));
        }
        if spec_of(wanted, Origin::Api).request.needs_its_file() {
            return Err(WriteError::NeedsFile(wanted.name.clone()));
        }
        let existing = self.subscription(&wanted.name);
        check_owner(existing.as_deref())?;
        expected.check(existing.as_deref())?;
        Ok(existing)
    }

    /// Ends a subscription; its progress is forgotten, its dead letters stay in their topic.
    pub async fn end_subscription(&self, name: &ByteString, expected: &Expected) -> Result<(), WriteError> {
        let _writing = self.0.writing.lock().await;
        let existing = self.subscription(name);
        check_owner(existing.as_deref())?;
        expected.check(existing.as_deref())?;
        self.0.consume.remove_subscription(name).await?;
        info!(subscription = %name, "a request ended a subscription");
        Ok(())
    }

    /// Creates a topic, or brings the one that is there to these settings.
    pub async fn put_topic(&self, spec: TopicSpec) -> Result<(Arc<Topic>, Outcome), WriteError> {
        let _writing = self.0.writing.lock().await;
        let existing = self.check_topic(&spec.name)?;
        let (topic, created) = self.create_topic(spec).await?;
        let outcome = match existing {
            _ if created => Outcome::Created,
            Some(existing) if existing.spec == topic.spec => Outcome::Unchanged,
            _ => Outcome::Changed,
        };
        Ok((topic, outcome))
    }

    fn check_topic(&self, name: &TopicName) -> Result<Option<Arc<Topic>>, WriteError> {
        if name.is_reserved() {
            return Err(WriteError::Reserved(name.clone()));
        }
        let existing = self.topic(name);
        match existing.as_ref().map(|topic| &topic.spec.origin) {
            Some(Origin::File(file)) => {
                Err(WriteError::OwnedByFile { what: "topic", name: name.to_string(), file: file.clone() })
            }
            _ => Ok(existing),
        }
    }

    /// Deletes a topic with its events.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), WriteError> {
        let _writing = self.0.writing.lock().await;
        self.check_topic(name)?;
        Ok(self.0.consume.delete_topic(name).await?)
    }

    /// Brings topics and subscriptions to what the resources say, each by itself, topics first. Gives what became of each,
    /// in that order; with `dry` only what would.
    pub async fn put_resources(&self, resources: &Resources, dry: bool) -> Vec<Applied> {
        let mut outcomes = Vec::new();
        for topic in &resources.topics {
            let spec = self.topic_spec(topic, Origin::Api);
            let outcome = if dry { self.would_put_topic(&spec) } else { self.put_topic(spec).await.map(|put| put.1) };
            outcomes.push(Applied { kind: "Topic", name: topic.name.to_string(), outcome });
        }
        for subscription in &resources.subscriptions {
            let outcome = if dry {
                self.would_put_subscription(subscription)
            } else {
                self.put_subscription(subscription, &Expected::default()).await.map(|put| put.1)
            };
            outcomes.push(Applied { kind: "Subscription", name: subscription.name.clone(), outcome });
        }
        outcomes
    }

    fn would_put_topic(&self, spec: &TopicSpec) -> Result<Outcome, WriteError> {
        self.check_topic(&spec.name)?;
        Ok(match self.catalogue().check_topic(spec)? {
            None => Outcome::Created,
            Some(existing) if existing.spec == *spec => Outcome::Unchanged,
            Some(_) => Outcome::Changed,
        })
    }

    fn would_put_subscription(&self, wanted: &resources::Subscription) -> Result<Outcome, WriteError> {
        let existing = self.check_subscription(wanted, &Expected::default())?;
        let spec = spec_of(wanted, Origin::Api);
        Ok(match existing {
            None => Outcome::Created,
            Some(existing) if existing.spec == spec => Outcome::Unchanged,
            Some(_) => Outcome::Changed,
        })
    }
}

/// What became of one resource.
#[derive(Debug)]
pub struct Applied {
    /// `Topic` or `Subscription`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What was done, or why nothing was.
    pub outcome: Result<Outcome, WriteError>,
}

fn check_owner(existing: Option<&Subscription>) -> Result<(), WriteError> {
    match existing.map(|existing| (&existing.spec.origin, &existing.spec.name)) {
        Some((Origin::File(file), name)) => {
            Err(WriteError::OwnedByFile { what: "subscription", name: name.to_string(), file: file.clone() })
        }
        _ => Ok(()),
    }
}
