//! How far logs were trimmed.
//!
//! RabbitMQ lets go of whole segments by age and bytes, and cannot be told to let go of records up to one. So it is
//! remembered how far a log was trimmed, in a stream beside the log that is created with the first trim: the last record of
//! `NAME~low` is the position before which nothing counts, as a decimal number. What is before it stays on the disk until the
//! broker's own retention takes it, and no reader is given it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tidegate_backbone::{ErrorKind, LogId, Position, Result};
use tidegate_schemas::limits;

use crate::ask::{Asker, StreamSettings};
use crate::error::misconfigured;
use crate::name::low;
use crate::registry::Registry;

/// See the module.
#[derive(Debug)]
pub(crate) struct Marks {
    asker: Arc<Asker>,
    registry: Arc<Registry>,
    settings: StreamSettings,
    /// How far logs were trimmed, as far as is known here.
    known: RwLock<HashMap<String, Position>>,
}

impl Marks {
    pub(crate) fn new(asker: Arc<Asker>, registry: Arc<Registry>, replicas: Option<u32>) -> Self {
        // Only the last record counts, so the broker keeps as little as it can.
        let settings =
            StreamSettings { segment_bytes: 1_000_000, bytes_max: Some(2_000_000), age_max_seconds: None, replicas };
        Self { asker, registry, settings, known: RwLock::default() }
    }

    /// How far the log of that stream was trimmed, as far as is known here without asking.
    pub(crate) fn known(&self, stream: &str) -> Position {
        self.known.read().get(stream).copied().unwrap_or(Position::ZERO)
    }

    /// How far the log of that stream was trimmed.
    pub(crate) async fn ask(&self, id: &LogId, stream: &str) -> Result<Position> {
        // Not asked for where it is not: the broker ends a channel over it, and writes an error into its log.
        if !self.registry.is_trimmed(id, limits::RABBITMQ_MARK_AGE).await? {
            return Ok(Position::ZERO);
        }
        match self.asker.last(&low(stream)).await {
            Ok(None) => Ok(Position::ZERO),
            Ok(Some(last)) => {
                let number = std::str::from_utf8(&last.data).ok().and_then(|text| text.parse().ok()).map(Position);
                if let Some(before) = number {
                    self.known.write().insert(stream.to_owned(), before);
                }
                number.ok_or_else(|| {
                    misconfigured(format!(
                        "the stream {} holds something else than positions; delete it, or what writes to it",
                        low(stream)
                    ))
                })
            }
            // It is being deleted.
            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(Position::ZERO),
            Err(error) => Err(error),
        }
    }

    /// Remembers it.
    pub(crate) async fn set(&self, id: &LogId, stream: &str, before: Position) -> Result<()> {
        let low = low(stream);
        let first = !self.registry.is_trimmed(id, Duration::ZERO).await?;
        if first {
            self.asker.declare(&low, self.settings).await?;
        }
        let written = self.asker.publish(&low, &before.to_string()).await;
        if first {
            self.registry.trim(id).await?;
        }
        if written.is_ok() {
            self.known.write().insert(stream.to_owned(), before);
        }
        written
    }

    /// Forgets a log that is gone, so that one of its name can begin anew.
    pub(crate) async fn forget(&self, stream: &str) -> Result<()> {
        self.known.write().remove(stream);
        self.asker.delete(&low(stream)).await
    }
}
