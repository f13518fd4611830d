//! What the clients tell while they run: whether the broker can be reached, and why not.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tidegate_backbone::{Clock, ErrorKind};

use crate::error::{kind_of, refusal};

/// Whether the broker can be reached. All clients of one adapter share it.
#[derive(Debug)]
pub(crate) struct Health {
    clock: Arc<dyn Clock>,
    down: AtomicBool,
    /// When the broker answered anything last, in milliseconds since the machine started; 0 before the first answer.
    answered: AtomicU64,
    last: Mutex<Option<Trouble>>,
}

/// How long a client may go without an acknowledgement, counted from the first append that it gave up, while the broker answers
/// others: then another client takes its place. Seen where the broker stood still and had another leader epoch afterwards.
const STUCK_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
struct Trouble {
    since_unix_milliseconds: u64,
    kind: ErrorKind,
    reason: String,
}

impl Health {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, down: AtomicBool::new(false), answered: AtomicU64::new(0), last: Mutex::default() })
    }

    /// The broker has answered.
    pub(crate) fn up(&self) {
        self.answered.store(self.now(), Ordering::Relaxed);
        if self.down.swap(false, Ordering::Relaxed) {
            tracing::info!("the Kafka broker can be reached again");
        }
        // A question that is answered ends what was wrong before it; the lock is only taken where something was.
        if let Some(mut last) = self.last.try_lock() {
            *last = None;
        }
    }

    /// Milliseconds since the machine started, never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.since_boot().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// The broker has not acknowledged for long, though its connections may stand.
    pub(crate) fn silent(&self) {
        let reason = "it does not acknowledge what is sent to it; look whether its disk is full, and into its log";
        self.trouble(Code::OperationTimedOut, reason);
        if !self.down.swap(true, Ordering::Relaxed) {
            tracing::warn!("the Kafka broker does not acknowledge what is sent to it");
        }
    }

    /// Whether no node of the broker can be reached, as far as is known.
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Since when and why the broker cannot be reached.
    pub(crate) fn unreachable(&self) -> Option<String> {
        if !self.is_down() {
            return None;
        }
        let last = self.last.lock().clone()?;
        let ago = self.clock.unix_milliseconds().saturating_sub(last.since_unix_milliseconds) / 1000;
        Some(format!("the Kafka broker cannot be reached for {ago} s: {}", last.reason))
    }

    /// What was told last, where nothing was answered since.
    pub(crate) fn last(&self) -> Option<(ErrorKind, String)> {
        self.last.lock().as_ref().map(|trouble| (trouble.kind.clone(), trouble.reason.clone()))
    }

    fn trouble(&self, code: Code, reason: &str) {
        let kind = kind_of(code);
        let mut last = self.last.lock();
        // A refusal says more than that there is no connection, which follows from it.
        let keep =
            last.as_ref().is_some_and(|last| last.kind != ErrorKind::Unavailable && kind == ErrorKind::Unavailable)
                || (code == Code::AllBrokersDown && last.is_some());
        let since_unix_milliseconds = match &*last {
            Some(last) => last.since_unix_milliseconds,
            None => self.clock.unix_milliseconds(),
        };
        if !keep {
            *last = Some(Trouble { since_unix_milliseconds, kind, reason: reason.to_owned() });
        }
        let told = last.as_ref().map(|last| last.reason.clone()).unwrap_or_default();
        drop(last);
        let refused = matches!(code, Code::Authentication | Code::SSL);
        if (code == Code::AllBrokersDown || refused) && !self.down.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason = told, "the Kafka broker cannot be reached");
        }
    }
}

/// What a client is told to call.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) health: Arc<Health>,
    /// Turns true where the client can do nothing any more and must be made anew.
    pub(crate) fatal: Arc<AtomicBool>,
    /// When it gave up the first append since its last acknowledgement, as [`Health::now`] says; 0 where it has not.
    given_up: Arc<AtomicU64>,
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Context").field("fatal", &self.fatal).finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(health: &Arc<Health>) -> Self {
        Self { health: Arc::clone(health), fatal: Arc::default(), given_up: Arc::default() }
    }
}

impl Context {
    /// The broker has acknowledged an append.
    pub(crate) fn acknowledged(&self) {
        self.health.up();
        if self.given_up.load(Ordering::Relaxed) != 0 {
            self.given_up.store(0, Ordering::Relaxed);
        }
    }

    /// The client gave an append up that was not acknowledged in time. Where it goes on like that while the broker answers
    /// others, another client is to take its place.
    pub(crate) fn gave_up(&self) {
        let now = self.health.now();
        let first = match self.given_up.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now,
            Err(first) => first,
        };
        let is_long = u128::from(now.saturating_sub(first)) >= STUCK_AFTER.as_millis();
        if is_long && self.health.answered.load(Ordering::Relaxed) > first && !self.fatal.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("a Kafka client gets nothing acknowledged, while the broker answers others");
        }
        self.health.silent();
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters of it comes as an error too.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!(target: "tidegate_kafka::client", facility, "{message}");
            }
            _ => tracing::debug!(target: "tidegate_kafka::client", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        // A refusal of TLS by the broker comes as a connection that ended.
        let code = match refusal(reason) {
            Some((ErrorKind::Misconfigured, _)) => Code::SSL,
            _ => code,
        };
        match code {
            Code::Fatal => self.fatal.store(true, Ordering::Relaxed),
            Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::SSL
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::OperationTimedOut
            | Code::RequestTimedOut => self.health.trouble(code, reason),
            _ => tracing::debug!(%error, reason, "the Kafka client tells"),
        }
    }
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that a test moves.
    #[derive(Debug, Default)]
    struct Moved(AtomicU64);

    impl Clock for Moved {
        fn unix_milliseconds(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn since_boot(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_client_that_gets_nothing_acknowledged_is_replaced_where_the_broker_answers_others() {
        let clock = Arc::new(Moved::default());
        let health = Health::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let at = |seconds: u64| clock.0.store(seconds * 1_000, Ordering::Relaxed);
        let replaced = |context: &Context| context.fatal.load(Ordering::Relaxed);

        at(100);
        let context = Context::new(&health);
        health.up();
        context.gave_up();
        at(105);
        health.up();
        context.gave_up();
        assert!(!replaced(&context), "it may yet be acknowledged something");
        at(111);
        context.gave_up();
        assert!(replaced(&context), "the broker answered others at 105");

        // The controls: a broker that answers nobody, and a client that was acknowledged something in between.
        let alone = Context::new(&health);
        at(120);
        alone.gave_up();
        at(140);
        alone.gave_up();
        assert!(!replaced(&alone), "another client would get nothing either");
        alone.acknowledged();
        at(160);
        health.up();
        alone.gave_up();
        assert!(!replaced(&alone), "it was acknowledged something at 140");
    }
}
