//! The mover's own place on the new backbone: it owns every slot there until the move is made.

use std::sync::Arc;
use std::time::Duration;

use tidegate_schemas::limits;
use tracing::info;

use super::Target;
use crate::claim::{self, Claims, Tenant};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::log::BoxFuture;
use crate::request::{self, MemberInfo, Requests};
use crate::slot::{Journal, SlotHandle};

const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// What tasks of a seat are waited for that is given up.
const GRACE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Seat {
    claims: Arc<Claims>,
    requests: Option<Requests>,
    environment: Environment,
}

/// Works in no slot.
#[derive(Debug)]
struct Nothing;

impl Tenant for Nothing {
    fn acquired(&self, _: Journal) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn releasing(&self, _: u32) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn lost(&self, _: u32) {}
}

impl Seat {
    /// Takes every slot of a backbone, once no gateway is there.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where a gateway runs on it; [`ErrorKind::Unavailable`] where not every slot could be taken.
    pub(super) async fn take(target: &Target, http: &str, environment: &Environment) -> Result<Self> {
        let environment = environment.child();
        let taken = Self::take_in(target, http, &environment).await;
        if taken.is_err() {
            environment.stop(GRACE).await;
        }
        taken
    }

    async fn take_in(target: &Target, http: &str, environment: &Environment) -> Result<Self> {
        let (log, options) = (Arc::clone(&target.log), claim::Options::default());
        if log.capability().exclusive {
            let claims = Claims::alone(log, environment.clone(), options).await?;
            return Ok(Self { claims, requests: None, environment: environment.clone() });
        }
        let Some(lane) = &target.lane else {
            let context = format!("gateways cannot reach each other over {}", target.name);
            return Err(Error::new(ErrorKind::Misconfigured, context));
        };
        let here = MemberInfo {
            http: http.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: environment.clock.unix_milliseconds(),
        };
        let requests = Requests::open(Arc::clone(lane), here, environment, request::Options::default()).await?;
        let others: Vec<_> =
            requests.members().iter().filter(|member| member.node != requests.node()).cloned().collect();
        if let Some(other) = others.first() {
            requests.leave().await;
            let context = format!(
                "a gateway runs on {}, at {}; stop all that do until the move is made, they can be started again then",
                target.name, other.info.http
            );
            return Err(Error::new(ErrorKind::Conflict, context));
        }
        let claims = Claims::join(log, requests.clone(), environment.clone(), options).await?;
        let seat = Self { claims, requests: Some(requests), environment: environment.clone() };
        seat.claims.begin(Arc::new(Nothing)).await;
        let all = async {
            while !seat.claims.owners().iter().all(|slot| slot.here) {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        if tokio::time::timeout(limits::BACKBONE_START_TIMEOUT, all).await.is_err() {
            seat.leave().await;
            let context = format!("not every slot of {} could be taken in time", target.name);
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        info!(
            target = target.name,
            slots = seat.claims.slots(),
            "the slots of the new backbone are held until the move"
        );
        Ok(seat)
    }

    /// Its slots, in the order of their numbers.
    pub(super) fn slots(&self) -> Vec<Arc<dyn SlotHandle>> {
        (0..self.claims.slots()).map(|slot| self.claims.slot(slot)).collect()
    }

    /// Gives them up, for the gateways that come.
    pub(super) async fn leave(&self) {
        self.claims.leave().await;
        if let Some(requests) = &self.requests {
            requests.leave().await;
        }
        self.environment.stop(GRACE).await;
    }
}
