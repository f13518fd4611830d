//! Where subscriptions begin: what of it must be asked, and what is written with the subscription.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, TryStreamExt as _};
use tidegate_routing::TopicName;
use tidegate_schemas::limits;

use super::checkpoint;
use super::core::Partition;
use super::engine::Consume;
use crate::catalogue::{ChangeError, Start};
use crate::error::Result;
use crate::log::{PartitionLog, Position};
use crate::slot::{Command, CommitError};

/// Where partitions begin and end, as they were asked at one moment. Subscriptions that begin together share it, so that the
/// broker is asked once for all of them.
#[derive(Debug, Default)]
pub struct Moment {
    spans: HashMap<Partition, (Position, Position)>,
    times: HashMap<(Partition, u64), Position>,
}

/// What a partition is asked.
enum Question {
    Span,
    Time(u64),
}

impl Moment {
    fn lacks(&self, partition: &Partition, start: &Start) -> Option<Question> {
        match start {
            // It takes what is there when it reads.
            Start::Earliest => None,
            Start::Latest | Start::At(_) => (!self.spans.contains_key(partition)).then_some(Question::Span),
            Start::Time(time) => {
                (!self.times.contains_key(&(partition.clone(), *time))).then_some(Question::Time(*time))
            }
        }
    }

    fn position(&self, partition: Partition, start: &Start) -> Option<Position> {
        match start {
            Start::Earliest => None,
            Start::Latest => self.spans.get(&partition).map(|(_, end)| *end),
            Start::At(cursor) => self.spans.get(&partition).map(|(begin, end)| {
                cursor.0.get(partition.number as usize).map_or(*begin, |position| (*position).clamp(*begin, *end))
            }),
            Start::Time(time) => self.times.get(&(partition, *time)).copied(),
        }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Span(partition, begin, end) => {
                self.spans.insert(partition, (begin, end));
            }
            Answer::Time(partition, time, position) => {
                self.times.insert((partition, time), position);
            }
        }
    }
}

enum Answer {
    Span(Partition, Position, Position),
    Time(Partition, u64, Position),
}

async fn ask(log: Arc<dyn PartitionLog>, partition: Partition, question: Question) -> Result<Answer> {
    let id = partition.log();
    Ok(match question {
        Question::Span => {
            let info = log.info(&id).await?;
            Answer::Span(partition, info.begin, info.end)
        }
        Question::Time(time) => Answer::Time(partition, time, log.lookup(&id, time).await?),
    })
}

impl Consume {
    /// Adds to a command for slot 0 where a subscription begins in topics that have so many partitions.
    pub(super) async fn put_starts(
        &self,
        mut command: Command,
        uid: u64,
        topics: &[(TopicName, u32)],
        start: &Start,
        moment: &mut Moment,
    ) -> Result<Command> {
        let partitions = |(topic, count): &(TopicName, u32)| {
            let topic = topic.clone();
            (0..*count).map(move |number| Partition { topic: topic.clone(), number })
        };
        let lacking: Vec<_> = topics
            .iter()
            .flat_map(partitions)
            .filter_map(|partition| {
                let question = moment.lacks(&partition, start)?;
                Some(Ok(ask(Arc::clone(&self.shared.log), partition, question)))
            })
            .collect();
        let mut answers = stream::iter(lacking).try_buffer_unordered(limits::BROKER_QUESTIONS);
        while let Some(answer) = answers.try_next().await? {
            moment.take(answer);
        }
        for topic in topics {
            let positions: Vec<Position> =
                partitions(topic).filter_map(|partition| moment.position(partition, start)).collect();
            let positions = (*start != Start::Earliest).then_some(positions);
            command = checkpoint::put_starts(command, uid, &topic.0, positions.as_deref());
        }
        Ok(command)
    }
}

/// What a command that does not fit means to whoever declared the subscription.
pub(super) fn too_many(error: ChangeError, name: &str, topics: usize) -> ChangeError {
    match error {
        ChangeError::Commit(CommitError::TooLarge { bytes, limit_bytes }) => {
            ChangeError::TooManyTopics { name: name.to_owned(), topics, bytes, limit_bytes }
        }
        error => error,
    }
}
