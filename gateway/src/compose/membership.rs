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

/// Resources that are told by name while they are tried again.
const TOLD: usize = 3;
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

/// Brings what the files declare into force. Where other gateways change the same at the same time, a slot waits for its
/// owner, or the broker is slow, it is tried again, until for a while nothing more has come into force: a broker may take
/// minutes for thousands of topics. Gives whether all of it is in force: what is on a broker beside the backbone that is away
/// comes later, and no start waits for it.
pub(super) async fn apply(
    block: &PubSub,
    resources: &Resources,
    folder: Option<&std::path::Path>,
) -> Result<bool, StartError> {
    let mut told = tokio::time::Instant::now();
    let mut standing = Standing::default();
    loop {
        let errors = match block.apply(resources, folder).await {
            Ok(()) => return Ok(true),
            Err(errors) => errors,
        };
        if errors.iter().all(|error| error.waits_for_broker()) {
            for error in &errors {
                warn!(%error, "a topic of a further broker is not in force yet; trying again");
            }
            return Ok(false);
        }
        let passes = block.is_shared() && errors.iter().all(|error| error.may_pass());
        if !passes || standing.note(errors.len(), tokio::time::Instant::now()) >= limits::BACKBONE_START_TIMEOUT {
            return Err(StartError::Apply(errors));
        }
        if told.elapsed() >= limits::BACKBONE_START_INTERVAL {
            told = tokio::time::Instant::now();
            for error in errors.iter().take(TOLD) {
                warn!(%error, "a resource is not in force yet; trying again");
            }
            if let Some(others) = errors.len().checked_sub(TOLD + 1) {
                warn!(others = others + 1, "other resources are not in force yet, either");
            }
        }
        tokio::time::sleep(APPLY_INTERVAL).await;
    }
}

/// How many resources are not in force at the least, and since when there are no fewer.
#[derive(Debug, Default)]
struct Standing(Option<(usize, tokio::time::Instant)>);

impl Standing {
    /// So many are not in force now; for how long there have been no fewer.
    fn note(&mut self, open: usize, now: tokio::time::Instant) -> Duration {
        match &mut self.0 {
            Some((fewest, since)) if open >= *fewest => now.saturating_duration_since(*since),
            standing => {
                *standing = Some((open, now));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_long_as_more_comes_into_force_nothing_stands_still() {
        let (began, second) = (tokio::time::Instant::now(), Duration::from_secs(1));
        let mut standing = Standing::default();
        assert_eq!(
            standing.note(10, began + 100 * second),
            Duration::ZERO,
            "the first attempt may take as long as it does"
        );
        assert_eq!(standing.note(10, began + 130 * second), 30 * second);
        assert_eq!(standing.note(9, began + 150 * second), Duration::ZERO, "one more came into force");
        assert_eq!(standing.note(12, began + 190 * second), 40 * second, "others fell back, which is no progress");
        assert_eq!(standing.note(9, began + 200 * second), 50 * second);
    }
}
