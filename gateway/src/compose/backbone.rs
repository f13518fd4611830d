//! Which backbone a configuration names, opened: an adapter, and how it is doing.

use std::fmt;
use std::sync::Arc;

use tidegate_backbone::queues::Queues;
use tidegate_backbone::{Environment, Error, ErrorKind, Lane, PartitionLog};
use tidegate_resources::config::{self, Backbone, BackboneUrl, Broker};
use tidegate_schemas::limits;
use tracing::{info, warn};

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

impl Opened {
    /// A broker that gateways share, which is healthy as long as it can be reached.
    #[cfg(any(feature = "kafka", feature = "nats", feature = "rabbitmq"))]
    pub(super) fn shared<B: PartitionLog + Lane + 'static>(
        broker: Arc<B>,
        unreachable: impl Fn(&B) -> Option<String> + Send + Sync + 'static,
        version: Option<String>,
    ) -> Self {
        let watched = Arc::clone(&broker);
        Self {
            log: Arc::clone(&broker) as _,
            lane: Some(broker as _),
            health: Health::new(|| None, move || unreachable(&watched)),
            version,
        }
    }
}

/// Opens the backbone that is named. A broker that cannot be reached is waited for, at most
/// [`limits::BACKBONE_START_TIMEOUT`]; one that refuses is not.
///
/// # Errors
/// What the adapter says, or that this binary has none for it.
pub async fn open(backbone: &Backbone, environment: &Environment) -> Result<Opened, Error> {
    open_telling(backbone, environment, &|_| {}).await
}

/// As [`open`]; `told` is told what is waited for.
pub(super) async fn open_telling(
    backbone: &Backbone,
    environment: &Environment,
    told: &(impl Fn(String) + Sync),
) -> Result<Opened, Error> {
    match &backbone.url {
        BackboneUrl::Broker { .. } => patiently(backbone, told, async || open_once(backbone, environment).await).await,
        _ => open_once(backbone, environment).await,
    }
}

/// As [`open`], without waiting for a broker that cannot be reached.
pub(super) async fn open_once(backbone: &Backbone, environment: &Environment) -> Result<Opened, Error> {
    match &backbone.url {
        BackboneUrl::Embedded { path } => embedded::open(path, environment),
        BackboneUrl::Broker { broker, .. } => match broker {
            #[cfg(feature = "nats")]
            Broker::Nats => super::nats::open(backbone, environment).await,
            #[cfg(feature = "kafka")]
            Broker::Kafka => super::kafka::open(backbone, environment).await,
            #[cfg(feature = "rabbitmq")]
            Broker::Rabbitmq => super::rabbitmq::open(backbone, environment).await,
            _ => Err(unfit(backbone)),
        },
        _ => Err(unfit(backbone)),
    }
}

/// The queues and exchanges of a broker, where it has such and this binary drives it.
pub(super) fn queues(backbone: &Backbone, environment: &Environment) -> Option<Result<Arc<dyn Queues>, Error>> {
    match backbone.url.broker()? {
        #[cfg(feature = "rabbitmq")]
        Broker::Rabbitmq => Some(super::rabbitmq::queues(backbone, environment)),
        _ => None,
    }
}

/// The filter of log lines for a configured level, which leaves out what the gateway says itself, of the backbone and of further
/// brokers.
pub(crate) fn log_filter(level: &str) -> String {
    match level {
        // The library of NATS tells each attempt to connect that fails as an error, several a second as long as a server is away or
        // takes the credentials no more, and hands all of them over as errors and events as well. The adapter says once that the
        // connection is lost, why, and that it is back. To the library of RabbitMQ every refusal is an error, that of a question
        // about a stream that is not there among them. Whoever looks closer (debug, trace) sees both.
        "error" | "warn" | "info" => format!("{level},async_nats=off,lapin=off"),
        _ => level.to_owned(),
    }
}

/// The backbones that this binary drives, by name.
pub fn built_in() -> Vec<&'static str> {
    config::built_in()
}

/// A configuration that nothing here can carry out.
pub(super) fn unfit(backbone: &Backbone) -> Error {
    let context =
        format!("the backbone {backbone} is not available in this version; there is: {}", built_in().join(", "));
    Error::new(ErrorKind::Misconfigured, context)
}

/// Tries until the broker can be reached, and says meanwhile what it waits for.
async fn patiently(
    backbone: &Backbone,
    told: &(impl Fn(String) + Sync),
    connect: impl AsyncFn() -> Result<Opened, Error>,
) -> Result<Opened, Error> {
    let began = tokio::time::Instant::now();
    let mut said = None;
    loop {
        let error = match connect().await {
            Ok(opened) => {
                let version = opened.version.as_deref();
                info!(%backbone, broker = opened.log.capability().broker, version, "the broker is reached");
                return Ok(opened);
            }
            Err(error) if *error.kind() == ErrorKind::Unavailable => error,
            Err(error) => return Err(error),
        };
        let waited = began.elapsed();
        let Some(left) = limits::BACKBONE_START_TIMEOUT.checked_sub(waited).filter(|left| !left.is_zero()) else {
            let seconds = waited.as_secs();
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the broker at {backbone} could not be reached within {seconds} s; start it, or correct the URL of the \
                     backbone: {error}"
                ),
            ));
        };
        let reason = error.to_string();
        told(format!("waits for the broker at {backbone}: {reason}"));
        // Each reason once: it is tried many times.
        if said.as_ref() != Some(&reason) {
            let most = limits::BACKBONE_START_TIMEOUT;
            warn!(%backbone, error = reason, ?most, "waiting for the broker");
            said = Some(reason);
        }
        tokio::time::sleep(limits::BACKBONE_START_INTERVAL.min(left)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn refusal(kind: ErrorKind) -> Error {
        Error::new(kind, "refused")
    }

    #[test]
    fn the_library_of_a_broker_is_heard_where_somebody_looks_closer() {
        assert_eq!(log_filter("info"), "info,async_nats=off,lapin=off");
        assert_eq!(log_filter("error"), "error,async_nats=off,lapin=off");
        assert_eq!(log_filter("debug"), "debug");
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_is_away_is_waited_for_and_one_that_refuses_is_not() {
        let backbone = Backbone::of_argument("embedded:x").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::system();
        let tried = Cell::new(0);
        let told = |what: String| {
            assert!(what.contains("waits for the broker at embedded:x: refused"), "{what}");
        };
        let opened = patiently(&backbone, &told, async || {
            tried.set(tried.get() + 1);
            if tried.get() < 4 {
                Err(refusal(ErrorKind::Unavailable))
            } else {
                embedded::open(folder.path(), &environment)
            }
        });
        opened.await.unwrap().log.close().await;
        assert_eq!(tried.get(), 4);

        tried.set(0);
        let denied = patiently(&backbone, &told, async || {
            tried.set(tried.get() + 1);
            Err(refusal(ErrorKind::Denied))
        });
        assert_eq!(denied.await.unwrap_err().kind(), &ErrorKind::Denied);
        assert_eq!(tried.get(), 1, "who is refused asks no second time");

        let away = patiently(&backbone, &told, async || Err(refusal(ErrorKind::Unavailable))).await.unwrap_err();
        assert!(away.to_string().contains("within 60 s; start it"), "{away}");
    }
}
