//! Which backbone a configuration names, opened: an adapter, and how it is doing.

use std::fmt;
use std::sync::Arc;

use tidegate_backbone::{Environment, Error, ErrorKind, PartitionLog};
use tidegate_resources::config::{Backbone, BackboneUrl};

use super::embedded;
use crate::edge::native::Health;

/// The broker that a gateway runs on.
pub struct Opened {
    /// Its logs.
    pub log: Arc<dyn PartitionLog>,
    /// How it is doing.
    pub health: Health,
}

impl fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Opened").field("log", &self.log).finish_non_exhaustive()
    }
}

/// Opens the backbone that is named.
pub(super) async fn open(backbone: &Backbone, environment: &Environment) -> Result<Opened, Error> {
    match &backbone.url {
        BackboneUrl::Embedded { path } => embedded::open(path, environment),
        // A configuration that names what is not built in was refused when it was read.
        url => {
            Err(Error::new(ErrorKind::Misconfigured, format!("the backbone {url} is not available in this version")))
        }
    }
}
