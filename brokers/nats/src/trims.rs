//! How far the partitions of topics were trimmed.
//!
//! A partition's positions have gaps where other partitions' records stand, so a reader cannot tell from them whether what
//! it has not read was trimmed or never was. The stream `NAMESPACE~~trims` holds one number for each partition that was ever
//! trimmed: the position behind its last record that went. It is written before the records go.

use std::collections::HashMap;

use async_nats::Subscriber;
use futures_util::StreamExt as _;
use parking_lot::RwLock;
use serde::Deserialize;
use tidegate_backbone::{Environment, Position, Result};

use crate::api::Which;
use crate::connection::Connection;
use crate::name::Names;

/// What is known of it here; [`Trims::ask`] knows for certain.
#[derive(Debug, Default)]
pub(crate) struct Trims(RwLock<HashMap<String, u64>>);

impl Trims {
    /// As far as is known here, how far a partition was trimmed.
    pub(crate) fn known(&self, names: &Names, topic: &str, partition: u32) -> Position {
        // Nothing was ever trimmed: no name need be made.
        let known = self.0.read();
        if known.is_empty() {
            return Position::ZERO;
        }
        Position(known.get(&names.trim(topic, partition)).copied().unwrap_or(0))
    }

    /// How far a partition was trimmed.
    pub(crate) async fn ask(
        &self,
        connection: &Connection,
        names: &Names,
        topic: &str,
        partition: u32,
    ) -> Result<Position> {
        let subject = names.trim(topic, partition);
        let message = connection.message(&names.trims().0, Which::Last(&subject)).await?;
        let before = message.and_then(|message| message.number()).unwrap_or(0);
        let mut known = self.0.write();
        if before == 0 {
            known.remove(&subject);
        } else {
            known.insert(subject, before);
        }
        Ok(Position(before))
    }

    /// Remembers it for everybody.
    pub(crate) async fn set(
        &self,
        connection: &Connection,
        names: &Names,
        topic: &str,
        partition: u32,
        before: Position,
    ) -> Result<()> {
        #[derive(Deserialize)]
        struct Acknowledgement {}
        let subject = names.trim(topic, partition);
        let action = format!("remembering that {subject} is at {before}");
        let answer = connection
            .call::<Acknowledgement>(&action, subject.clone(), before.0.to_string().into_bytes(), true)
            .await?;
        answer.map_err(|refusal| refusal.error(&action, connection.record_bytes_max))?;
        self.0.write().insert(subject, before.0);
        Ok(())
    }

    /// Forgets a topic that is gone, so that one of its name can begin anew.
    pub(crate) async fn forget(&self, connection: &Connection, names: &Names, topic: &str) -> Result<()> {
        let subjects = names.trims_of(topic);
        connection.purge(&names.trims().0, Some(&subjects), None).await?;
        let prefix = subjects.trim_end_matches('*');
        self.0.write().retain(|subject, _| !subject.starts_with(prefix));
        Ok(())
    }

    /// Takes what other gateways tell while they do it.
    pub(crate) async fn follow(&self, mut told: Subscriber, environment: Environment) {
        loop {
            let message = tokio::select! {
                () = environment.stopping().cancelled() => return,
                message = told.next() => message,
            };
            let Some(message) = message else { return };
            let number = std::str::from_utf8(&message.payload).ok().and_then(|text| text.parse().ok());
            if let Some(number) = number {
                self.0.write().insert(message.subject.to_string(), number);
            }
        }
    }
}
