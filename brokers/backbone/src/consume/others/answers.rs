//! Answers for the partitions of this process.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use serde::Serialize;
use tidegate_schemas::limits;

use super::{Answered, Asked, Question};
use crate::catalogue::ChangeError;
use crate::consume::engine::{Consume, Status};
use crate::consume::letters::{DeadLetter, Redrive};
use crate::log::BoxFuture;
use crate::request::{Handler, Refusal, Request};

/// Bytes of the events of one answer; the rest is asked for again.
const ANSWER_BYTES: usize = limits::LANE_BODY_BYTES / 4;

/// Answers while delivery runs.
#[derive(Debug)]
pub(super) struct Answers(Weak<Consume>);

impl Answers {
    pub(super) fn new(consume: &Arc<Consume>) -> Self {
        Self(Arc::downgrade(consume))
    }
}

impl Handler for Answers {
    fn handle(&self, request: Request) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async move {
            let Some(consume) = self.0.upgrade() else {
                return Err(Refusal::new("closed", "this gateway delivers nothing any more"));
            };
            let asked: Asked = serde_json::from_slice(&request.body)
                .map_err(|error| Refusal::new("malformed", format!("the question cannot be read: {error}")))?;
            consume.catalogue().reached(asked.catalogue).await;
            consume.answer(asked.question).await
        })
    }
}

impl Consume {
    /// How subscriptions stand in the partitions that are delivered here, with what they are behind by in events.
    pub(super) async fn statuses_here(&self, uids: &[u64]) -> HashMap<u64, Status> {
        let status = |uid: &u64| {
            let uid = *uid;
            async move {
                let mut status = self.status(uid)?;
                if status.behind > 0 {
                    // Where the broker does not answer, the positions: no fewer than events.
                    status.behind = self.behind(uid).await.unwrap_or(status.behind);
                }
                Some((uid, status))
            }
        };
        futures_util::future::join_all(uids.iter().map(status)).await.into_iter().flatten().collect()
    }

    async fn answer(&self, question: Question) -> Result<Bytes, Refusal> {
        // Before it is looked: a slot that comes meanwhile is not spoken for, and one that goes has another owner to ask.
        let slots = self.slots();
        match question {
            Question::Statuses { uids } => answer(slots, self.statuses_here(&uids).await),
            Question::PausedKeys { uid, limit } => {
                answer(slots, self.paused_keys_here(uid, limit).await.map_err(refusal)?)
            }
            Question::ResumeKeys { name, which, head } => {
                answer(slots, self.resume_keys_here(&name.into(), &which, head).await.map_err(refusal)?)
            }
            Question::DeadLetters { name, selection, after, limit } => {
                let letters = self.dead_letters_here(&name.into(), &selection, after, limit).await.map_err(refusal)?;
                answer(slots, cut(letters))
            }
            Question::Groups { name, selection } => {
                answer(slots, self.dead_letter_groups_here(&name.into(), &selection).await.map_err(refusal)?)
            }
            Question::Redrive { name, selection, edits, interval, offset, dry } => {
                let interval = Some(Duration::from_millis(interval)).filter(|interval| !interval.is_zero());
                let redrive = Redrive { interval, edits, dry };
                let name = ByteString::from(name);
                let offset = Duration::from_millis(offset);
                answer(slots, self.redrive_here(&name, &selection, &redrive, offset).await.map_err(refusal)?)
            }
            Question::Drop { name, selection } => {
                answer(slots, self.drop_here(&name.into(), &selection).await.map_err(refusal)?)
            }
            Question::Passports { id, source } => {
                answer(slots, self.gather(&id, source.as_deref()).await.map_err(refusal)?)
            }
        }
    }
}

/// As many letters as fit into an answer, at least one, and whether there are more.
fn cut(mut letters: Vec<DeadLetter>) -> (Vec<DeadLetter>, bool) {
    let mut bytes = 0;
    let fitting = letters.iter().take_while(|letter| {
        bytes += letter.event.bytes();
        bytes <= ANSWER_BYTES
    });
    let count = fitting.count().max(1);
    let cut = count < letters.len();
    letters.truncate(count);
    (letters, cut)
}

fn answer<T: Serialize>(slots: Vec<u32>, answer: T) -> Result<Bytes, Refusal> {
    serde_json::to_vec(&Answered { slots, answer })
        .map(Bytes::from)
        .map_err(|error| Refusal::new("internal", format!("the answer cannot be written: {error}")))
}

fn refusal(error: impl Into<ChangeError>) -> Refusal {
    Refusal::new("refused", error.into().to_string())
}
