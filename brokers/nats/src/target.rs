//! Where a log is on the broker: of ours by its names, of others as they were found when they were attached.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::Subject;
use bytestring::ByteString;
use parking_lot::RwLock;
use tidegate_backbone::{Durability, LogId, Result};
use tidegate_schemas::limits;

use crate::api::Stream;
use crate::error::{misconfigured, not_found};
use crate::name::Names;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) id: LogId,
    pub(crate) stream: String,
    /// Where it is written; none where nobody can say which subject that is.
    pub(crate) subject: Option<Subject>,
    /// Which of the stream's messages are of it; none where all are.
    pub(crate) filter: Option<String>,
    /// Whether somebody else made it.
    pub(crate) attached: bool,
}

impl Target {
    /// The topic and partition, where the log is one: its records are events.
    pub(crate) fn partition(&self) -> Option<(&ByteString, u32)> {
        match &self.id {
            LogId::Topic { topic, partition } => Some((topic, *partition)),
            _ => None,
        }
    }

    /// Whether the stream is this log and no other, so that no position is left out.
    pub(crate) fn is_single(&self) -> bool {
        self.filter.is_none()
    }
}

/// A topic of somebody else's.
#[derive(Debug)]
struct Attached {
    stream: String,
    /// The subject of each partition; of a stream that is one partition, its subject where there is one to write to.
    subjects: Vec<Option<String>>,
    filters: Vec<String>,
    durability: Durability,
}

/// Finds logs.
#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) names: Names,
    attached: RwLock<HashMap<ByteString, Arc<Attached>>>,
    /// What was found before: names are put together once, and not for each append.
    found: RwLock<HashMap<LogId, Arc<Target>>>,
}

impl Targets {
    pub(crate) fn new(names: Names) -> Self {
        Self { names, attached: RwLock::default(), found: RwLock::default() }
    }

    /// Where a log is, whether it exists or not.
    ///
    /// # Errors
    /// [`tidegate_backbone::ErrorKind::NotFound`] for a partition that an attached topic does not have.
    pub(crate) fn find(&self, id: &LogId) -> Result<Arc<Target>> {
        if let Some(found) = self.found.read().get(id) {
            return Ok(Arc::clone(found));
        }
        // Attaching and detaching wait until it is in its place, and then it is forgotten.
        let attached = self.attached.read();
        let target = Arc::new(self.look(id, &attached)?);
        let mut found = self.found.write();
        if found.len() >= limits::NATS_TARGETS_KEPT {
            found.clear();
        }
        found.insert(id.clone(), Arc::clone(&target));
        Ok(target)
    }

    fn look(&self, id: &LogId, attached: &HashMap<ByteString, Arc<Attached>>) -> Result<Target> {
        let LogId::Topic { topic, partition } = id else {
            let (stream, subject) = self.names.single(id).ok_or_else(|| not_found(id))?;
            let subject = Some(Subject::from(subject));
            return Ok(Target { id: id.clone(), stream, subject, filter: None, attached: false });
        };
        let Some(attached) = attached.get(topic) else {
            let subject = self.names.topic_subject(topic, *partition);
            let stream = self.names.topic_stream(topic);
            return Ok(Target {
                id: id.clone(),
                stream,
                filter: Some(subject.clone()),
                subject: Some(Subject::from(subject)),
                attached: false,
            });
        };
        let at = *partition as usize;
        let filter = attached.filters.get(at).cloned().ok_or_else(|| not_found(id))?;
        let subject = attached.subjects.get(at).cloned().flatten().map(Subject::from);
        Ok(Target { id: id.clone(), stream: attached.stream.clone(), subject, filter: Some(filter), attached: true })
    }

    /// Remembers a stream as a topic; gives its number of partitions.
    ///
    /// # Errors
    /// [`tidegate_backbone::ErrorKind::Misconfigured`] where it cannot be one.
    pub(crate) fn attach(&self, stream: &Stream, to: &str) -> Result<u32> {
        let config = &stream.config;
        let partitions = u32::try_from(config.subjects.len()).unwrap_or(0);
        let durability = config.durability();
        let attached = match stem(&config.subjects) {
            Some(stem) => {
                let subjects: Vec<String> = (0..partitions).map(|partition| format!("{stem}.{partition}")).collect();
                let written = subjects.iter().cloned().map(Some).collect();
                Attached { stream: config.name.clone(), subjects: written, filters: subjects, durability }
            }
            None => {
                let one = match &config.subjects[..] {
                    [subject] if !subject.contains(['*', '>']) => Some(subject.clone()),
                    _ => None,
                };
                Attached { stream: config.name.clone(), subjects: vec![one], filters: vec![">".to_owned()], durability }
            }
        };
        if to.is_empty() {
            return Err(misconfigured(format!("the stream {} is attached to a topic without a name", config.name)));
        }
        let count = u32::try_from(attached.filters.len()).unwrap_or(u32::MAX);
        let mut all = self.attached.write();
        all.insert(ByteString::from(to), Arc::new(attached));
        self.found.write().clear();
        Ok(count)
    }

    /// Lets go of an attached topic; whether it was one.
    pub(crate) fn detach(&self, topic: &str) -> bool {
        let mut all = self.attached.write();
        self.found.write().clear();
        all.remove(topic).is_some()
    }

    /// What an acknowledged event of a topic of somebody else's survives; none where it is not attached.
    pub(crate) fn durability_of(&self, topic: &str) -> Option<Durability> {
        self.attached.read().get(topic).map(|attached| attached.durability)
    }

    /// Whether that topic is somebody else's.
    pub(crate) fn is_attached(&self, topic: &str) -> bool {
        self.attached.read().contains_key(topic)
    }

    /// The logs of all attached topics.
    pub(crate) fn attached(&self) -> Vec<LogId> {
        let attached = self.attached.read();
        let logs = attached.iter().flat_map(|(topic, attached)| {
            (0..attached.filters.len()).map(|partition| LogId::Topic {
                topic: topic.clone(),
                partition: u32::try_from(partition).unwrap_or(u32::MAX),
            })
        });
        logs.collect()
    }
}

/// What the subjects have in common before the numbers of partitions, where they are `STEM.0`, `STEM.1` and so on.
fn stem(subjects: &[String]) -> Option<&str> {
    let stem = subjects.iter().find_map(|subject| subject.strip_suffix(".0"))?;
    let fits = |partition: usize| subjects.contains(&format!("{stem}.{partition}"));
    (!stem.contains(['*', '>']) && (0..subjects.len()).all(fits)).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::StreamConfig;

    fn stream(subjects: &[&str]) -> Stream {
        let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        let config = StreamConfig { name: "THEIRS".to_owned(), subjects, ..StreamConfig::default() };
        Stream { config, ..Stream::default() }
    }

    #[test]
    fn a_stream_of_others_is_as_durable_as_it_is() {
        let targets = Targets::new(Names::new("tidegate", ""));
        let cases = [
            (1, "file", Durability::Os),
            (1, "memory", Durability::Memory),
            (3, "memory", Durability::Replicated),
            (3, "file", Durability::Replicated),
        ];
        for (num_replicas, storage, durability) in cases {
            let mut stream = stream(&["sales"]);
            stream.config = StreamConfig { num_replicas, storage: storage.to_owned(), ..stream.config };
            targets.attach(&stream, "orders").unwrap();
            assert_eq!(targets.durability_of("orders"), Some(durability), "{num_replicas} in {storage}");
        }
        assert_eq!(targets.durability_of("others"), None);
    }

    #[test]
    fn a_stream_of_others_has_the_partitions_that_its_subjects_say() {
        let targets = Targets::new(Names::new("tidegate", ""));
        let id = |partition| LogId::Topic { topic: "orders".into(), partition };
        let cases: [(&[&str], u32, Option<&str>, &str); 5] = [
            (&["sales.1", "sales.0"], 2, Some("sales.0"), "sales.0"),
            (&["sales"], 1, Some("sales"), ">"),
            (&["sales.>"], 1, None, ">"),
            (&["sales.0", "sales.2"], 1, None, ">"),
            (&[], 1, None, ">"),
        ];
        for (subjects, partitions, subject, filter) in cases {
            assert_eq!(targets.attach(&stream(subjects), "orders").unwrap(), partitions, "{subjects:?}");
            let target = targets.find(&id(0)).unwrap();
            assert_eq!((target.stream.as_str(), target.subject.as_deref()), ("THEIRS", subject));
            assert_eq!(target.filter.as_deref(), Some(filter));
            assert!(targets.find(&id(partitions)).is_err());
        }
        assert!(targets.detach("orders") && !targets.detach("orders"));
        assert_eq!(targets.find(&id(7)).unwrap().stream, "orders", "then it is one of ours by its name");
    }
}
