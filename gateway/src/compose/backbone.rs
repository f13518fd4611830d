//! Which backbone a configuration names, opened: an adapter, and how it is doing.

use std::fmt;
use std::sync::Arc;

use tidegate_backbone::{Environment, Error, ErrorKind, Lane, PartitionLog};
use tidegate_resources::config::{Backbone, BackboneUrl};

use super::embedded;
use crate::edge::native::Health;

/// The broker that a gateway runs on.
pub struct Opened {
    /// Its logs.
    pub log: Arc<dyn PartitionLog>,
    /// How gateways that share it reach each other; none where one has it for itself.
    pub lane: Option<Arc<dyn Lane>>,
    /// How it is doing.
    pub health: Health,
    /// The version that the broker tells, where it tells one.
    pub version: Option<String>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Opened").field("log", &self.log).finish_non_exhaustive()
    }
}

/// Opens the backbone that is named.
///
/// # Errors
/// What the adapter says, or that this binary has none for it.
pub async fn open(backbone: &Backbone, environment: &Environment) -> Result<Opened, Error> {
    match &backbone.url {
        BackboneUrl::Embedded { path } => embedded::open(path, environment),
        _ => Err(unfit(backbone)),
    }
}

/// A configuration that could not have been read by this build.
pub(super) fn unfit(backbone: &Backbone) -> Error {
    Error::new(ErrorKind::Misconfigured, format!("the backbone {backbone} is not one that this binary has"))
}
