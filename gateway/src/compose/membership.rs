//! How a gateway takes part in the cluster of its backbone: alone where it has it for itself, otherwise as one of several.

use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::claim::{self, Claims};
use tidegate_backbone::request::{self, MemberInfo, Requests};
use tidegate_backbone::{Environment, Error, ErrorKind};
use tidegate_resources::Resources;
use tidegate_schemas::limits;
use tracing::{info, warn};

use super::StartError;
use super::backbone::Opened;
use crate::blocks::cluster::Cluster;
use crate::blocks::pubsub::PubSub;

/// How often what another gateway has in hand is tried again at the start.
const APPLY_INTERVAL: Duration = Duration::from_millis(500);

/// Joins the cluster of a backbone, or begins it.
pub(super) async fn join(opened: &Opened, here: MemberInfo, environment: &Environment) -> Result<Cluster, Error> {
    let (log, options) = (Arc::clone(&opened.log), claim::Options::default());
    if log.capability().exclusive {
        let claims = Claims::alone(log, environment.clone(), options).await?;
        return Ok(Cluster::new(claims, None, here));
    }
    let Some(lane) = &opened.lane else {
        let broker = log.capability().broker;
        return Err(Error::new(ErrorKind::Misconfigured, format!("gateways cannot reach each other over {broker}")));
    };
    let requests = Requests::open(Arc::clone(lane), here.clone(), environment, request::Options::default()).await?;
    let others = requests.members().len().saturating_sub(1);
    let claims = Claims::join(log, requests.clone(), environment.clone(), options).await?;
    info!(node = %requests.node(), others, slots = claims.slots(), "the gateway is one of the cluster");
    Ok(Cluster::new(claims, Some(requests), here))
}

/// Brings what the files declare into force. Where other gateways change the same at the same time, or a slot waits for
/// its owner, it is tried again for a while.
pub(super) async fn apply(
    block: &PubSub,
    resources: &Resources,
    folder: Option<&std::path::Path>,
) -> Result<(), StartError> {
    let began = tokio::time::Instant::now();
    let mut told = began;
    loop {
        let errors = match block.apply(resources, folder).await {
            Ok(()) => return Ok(()),
            Err(errors) => errors,
        };
        let passes = block.is_shared() && errors.iter().all(|error| error.may_pass());
        if !passes || began.elapsed() >= limits::BACKBONE_START_TIMEOUT {
            return Err(StartError::Apply(errors));
        }
        if told.elapsed() >= limits::BACKBONE_START_INTERVAL {
            told = tokio::time::Instant::now();
            for error in &errors {
                warn!(%error, "a resource is not in force yet; trying again");
            }
        }
        tokio::time::sleep(APPLY_INTERVAL).await;
    }
}
