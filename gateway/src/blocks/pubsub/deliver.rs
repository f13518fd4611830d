//! Calls the sink of one subscription: at most as many attempts at once as it allows, each ending in exactly one of
//! done, retry, dead letter, a paused key, unreachable, or given back.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_backbone::catalogue::{ChangeError, OnExhausted};
use tidegate_backbone::consume::{Attempt, Consumer, Delivery, Reason};
use tidegate_backbone::{Error, ErrorKind};
use tidegate_routing::answer::Answer as Judged;
use tidegate_routing::{PauseCause, PauseState, RetryDecision, RetryHint, TopicName, Verdict, hops};
use tidegate_schemas::{Event, limits};
use tracing::{debug, warn};

use super::consent::Consent;
use super::{PubSub, PublishError, reply};
use crate::sink::{self, Failure};
use crate::telemetry::traces::{self, Ended, Span};
use tidegate_resources::Sink;

struct Caller {
    block: PubSub,
    pause: Mutex<PauseState>,
}

/// Why an event could not be published to a topic.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// There is no such topic.
    #[error(transparent)]
    Topic(#[from] PublishError),
    /// Its broker did not take it, or did not say so.
    #[error(transparent)]
    Broker(#[from] Error),
}

impl Refusal {
    /// What it means for the delivery. A broker that takes nothing for now, whatever the reason, is no failure of the event: it
    /// waits for the broker as for a sink that cannot be reached, and one whose outcome is not known is published again.
    fn verdict(&self) -> Verdict {
        match self {
            Self::Broker(error) => match error.kind() {
                ErrorKind::TooLarge { .. } => Verdict::EventAtFault,
                _ => Verdict::Unreachable,
            },
            Self::Topic(PublishError::Create(ChangeError::Broker(_))) => Verdict::Unreachable,
            Self::Topic(_) => Verdict::Retry(RetryHint::default()),
        }
    }
}

/// What one attempt means.
enum Meaning {
    /// By the table of answers.
    Verdict(Verdict),
    /// The event came round in a circle.
    Loop,
    /// No event can ever get through, for that reason.
    Hopeless(String),
}

impl Meaning {
    /// What failed where there was no answer, as a word that does not change.
    fn error_type(&self) -> &'static str {
        match self {
            Self::Verdict(Verdict::Unreachable) => "unreachable",
            Self::Verdict(_) => "no_answer",
            Self::Loop => "loop",
            Self::Hopeless(_) => "refused_address",
        }
    }
}

/// Runs until the subscription ends or the process stops.
pub(super) async fn run(block: PubSub, consumer: Consumer) {
    let environment = block.0.environment.clone();
    let consent = Consent::new(block.clone());
    let caller = Arc::new(Caller { block, pause: Mutex::new(PauseState::default()) });
    while consent.pace().await
        && let Some(delivery) = consumer.next().await
    {
        let Some(delivery) = consent.check(delivery).await else { continue };
        let caller = Arc::clone(&caller);
        environment.spawn(async move { caller.attempt(delivery).await });
    }
}

impl Caller {
    async fn attempt(&self, delivery: Delivery) {
        let span = self.span(&delivery);
        span.scope(self.attempt_within(&span, delivery)).await;
    }

    fn span(&self, delivery: &Delivery) -> Span {
        if !self.block.0.traces.is_on() {
            return Span::default();
        }
        let (topic, partition, position) = delivery.place();
        let subscription = delivery.subscription();
        self.block.0.traces.deliver(&traces::Attempt {
            event: delivery.event(),
            topic,
            partition,
            position: position.0,
            subscription: &subscription.spec.name,
            uid: subscription.uid,
            number: delivery.attempt(),
            first_attempt_at: delivery.first_attempt_at(),
            sink: &subscription.spec.sink,
        })
    }

    async fn attempt_within(&self, span: &Span, delivery: Delivery) {
        let began = tokio::time::Instant::now();
        if delivery.expired_at().is_some() {
            delivery.expire().await;
            return;
        }
        let subscription = Arc::clone(delivery.subscription());
        let (meaning, mut attempt) = match self.block.target(&subscription) {
            Ok(target) => match target.sink() {
                Sink::Http(http) => {
                    let uid = format!("{:016x}", subscription.uid);
                    let attempt =
                        sink::Attempt { subscription: &uid, event: delivery.event(), number: delivery.attempt() };
                    let now = self.block.0.environment.clock.unix_milliseconds() / 1_000;
                    let (mut headers, body) = target.write(&attempt, &subscription.spec.request, now);
                    span.put_into_headers(&mut headers);
                    let takes_reply =
                        subscription.spec.reply_to.is_some() || self.block.0.waiters.any(delivery.event());
                    if takes_reply {
                        headers.insert(reply::PREFER.0, reply::PREFER.1);
                    }
                    let (sinks, timeout) = (&self.block.0.sinks, subscription.spec.timeout);
                    let outcome = sinks.http.deliver(target.route(http.uri()), headers, body, timeout).await;
                    let judged = self.judge(&target, &outcome);
                    match outcome {
                        Ok(answer) if takes_reply => self.take_reply(&uid, &delivery, &answer, judged).await,
                        _ => judged,
                    }
                }
                Sink::Topic(topic) => self.forward(topic, &delivery).await,
                Sink::Binding(name) => self.send(name, &delivery).await,
            },
            // Another gateway may have the file, and this one get it; nobody's backlog is stopped for it.
            Err(reason) if self.block.is_shared() && subscription.spec.request.needs_its_file() => {
                let detail = format!("this gateway cannot deliver: {reason}");
                (Meaning::Verdict(Verdict::Unreachable), Attempt { detail, ..Attempt::default() })
            }
            Err(reason) => (Meaning::Hopeless(reason.clone()), Attempt { detail: reason, ..Attempt::default() }),
        };
        attempt.took = began.elapsed();
        span.end(&Ended {
            status: attempt.status,
            done: matches!(meaning, Meaning::Verdict(Verdict::Done)),
            error_type: meaning.error_type(),
            detail: &attempt.detail,
        });
        if delivery.is_void() {
            // Another gateway delivers the event by now, and takes the answer that it gets.
            return;
        }
        match meaning {
            Meaning::Verdict(verdict) => self.settle(delivery, verdict, attempt).await,
            Meaning::Loop => delivery.dead_letter(Reason::Loop, &attempt).await,
            Meaning::Hopeless(reason) => {
                self.pause(&subscription.spec.name, reason).await;
                drop(delivery);
            }
        }
    }

    async fn settle(&self, delivery: Delivery, verdict: Verdict, attempt: Attempt) {
        let environment = &self.block.0.environment;
        let policy = delivery.subscription().spec.retry;
        let decision = match verdict {
            // A sink that fails whatever it is sent uses up nothing of the event that probes it.
            Verdict::Retry(_) if delivery.is_probe() => Some(RetryDecision::After(Duration::ZERO)),
            Verdict::Retry(hint) | Verdict::RetryThenPause(hint) => {
                Some(policy.next_delay(delivery.attempt(), environment.random.bits(), hint, delivery.age()))
            }
            _ => None,
        };
        let exhausted = matches!(decision, Some(RetryDecision::Exhausted(_)));
        let pause = self.pause.lock().record(verdict, exhausted, environment.clock.since_boot());
        if let Some(cause) = pause {
            self.stop(delivery, &attempt, cause).await;
            return;
        }
        match (verdict, decision) {
            (Verdict::Done, _) => delivery.done(&attempt),
            (Verdict::EventAtFault, _) => delivery.dead_letter(Reason::Rejected, &attempt).await,
            (Verdict::RetryThenPause(_), Some(RetryDecision::After(delay))) => delivery.refused(delay, &attempt),
            (_, Some(RetryDecision::After(delay))) => delivery.retry(delay, &attempt),
            (_, Some(RetryDecision::Exhausted(_)))
                if delivery.subscription().spec.on_exhausted == OnExhausted::PauseKey && !delivery.is_redriven() =>
            {
                delivery.pause_key(&attempt);
            }
            (_, Some(RetryDecision::Exhausted(_))) => delivery.dead_letter(Reason::Exhausted, &attempt).await,
            (Verdict::Unreachable, None) => {
                let name = &delivery.subscription().spec.name;
                debug!(subscription = %name, detail = attempt.detail, "a sink cannot be reached");
                delivery.unreachable(&attempt);
            }
            // `record` pauses at once for Pause, and the others always have a decision.
            (Verdict::Pause | Verdict::Retry(_) | Verdict::RetryThenPause(_), None) => {}
        }
    }

    /// Publishes the event to another topic, one hop older.
    async fn forward(&self, topic: &TopicName, delivery: &Delivery) -> (Meaning, Attempt) {
        let event = match hops::advance(delivery.event().as_ref().clone()) {
            Ok(event) => event,
            Err(error) => return (Meaning::Loop, Attempt { detail: error.to_string(), ..Attempt::default() }),
        };
        match self.publish(topic, event).await {
            Ok(()) => (Meaning::Verdict(Verdict::Done), Attempt::default()),
            Err(refusal) => {
                let detail = refusal.to_string();
                (Meaning::Verdict(refusal.verdict()), Attempt { detail, ..Attempt::default() })
            }
        }
    }

    /// Sends the event to a queue or an exchange, one hop older, since it may come back from there.
    async fn send(&self, binding: &str, delivery: &Delivery) -> (Meaning, Attempt) {
        let event = match hops::advance(delivery.event().as_ref().clone()) {
            Ok(event) => event,
            Err(error) => return (Meaning::Loop, Attempt { detail: error.to_string(), ..Attempt::default() }),
        };
        let (outputs, timeout) = (&self.block.0.sinks.outputs, delivery.subscription().spec.timeout);
        let (verdict, detail) = match tokio::time::timeout(timeout, outputs.send(binding, event)).await {
            Ok(Ok(())) => (Verdict::Done, String::new()),
            Ok(Err(unsent)) => (unsent.verdict(), unsent.to_string()),
            // It may have it all the same, as a sink that gave no answer.
            Err(_) => {
                (Verdict::Retry(RetryHint::default()), format!("the broker has confirmed nothing within {timeout:?}"))
            }
        };
        (Meaning::Verdict(verdict), Attempt { detail, ..Attempt::default() })
    }

    /// Takes the reply of an answer, if it holds one. An invalid one is told and changes nothing: the sink has handled the
    /// event. One that cannot be published is a reason to try again, because the sink will give it again.
    async fn take_reply(
        &self,
        uid: &str,
        delivery: &Delivery,
        answer: &sink::Answer,
        (meaning, mut attempt): (Meaning, Attempt),
    ) -> (Meaning, Attempt) {
        let event = match reply::read(uid, delivery.event(), answer) {
            Ok(Some(event)) => event,
            Ok(None) => return (meaning, attempt),
            Err(reason) => {
                attempt.detail = format!("the reply was not taken: {reason}");
                return (meaning, attempt);
            }
        };
        self.block.tell_reply(delivery.event(), &event).await;
        let Some(topic) = &delivery.subscription().spec.reply_to else { return (meaning, attempt) };
        match self.publish(topic, event).await {
            Ok(()) => (meaning, attempt),
            Err(reason) => {
                attempt.detail = format!("the reply could not be published to {topic}: {reason}");
                (Meaning::Verdict(Verdict::Retry(RetryHint::default())), attempt)
            }
        }
    }

    async fn publish(&self, topic: &TopicName, event: Event) -> Result<(), Refusal> {
        let topic = self.block.topic_for_publish(topic).await?;
        self.block.publish(&topic, event).await?;
        Ok(())
    }

    fn judge(&self, target: &sink::Target, outcome: &Result<sink::Answer, Failure>) -> (Meaning, Attempt) {
        let now = self.block.0.environment.clock.unix_milliseconds();
        match outcome {
            Ok(answer) => {
                let status = answer.status.as_u16();
                let retry_after = answer.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let verdict = Verdict::of(Judged::Status { status, retry_after }, now);
                let detail = if verdict == Verdict::Done {
                    String::new()
                } else {
                    // Redacted before it is cut, so that the cut leaves no part of a secret.
                    excerpt(target.redact(&String::from_utf8_lossy(&answer.body)))
                };
                (Meaning::Verdict(verdict), Attempt { took: Duration::ZERO, status: Some(status), detail })
            }
            Err(failure) => {
                let detail = failure.to_string();
                let meaning = match failure {
                    Failure::Unreachable(_) => Meaning::Verdict(Verdict::of(Judged::Unreachable, now)),
                    Failure::NoAnswer(_) => Meaning::Verdict(Verdict::of(Judged::None, now)),
                    Failure::Forbidden(_) | Failure::Invalid(_) => Meaning::Hopeless(detail.clone()),
                };
                (meaning, Attempt { took: Duration::ZERO, status: None, detail })
            }
        }
    }

    async fn stop(&self, delivery: Delivery, attempt: &Attempt, cause: PauseCause) {
        let name = delivery.subscription().spec.name.clone();
        let status = attempt.status.map_or_else(|| "nothing".to_owned(), |status| status.to_string());
        // The pause first: an event that is given back before it would go out once more.
        self.pause(&name, format!("{}: the sink answered {status}", cause.as_str())).await;
        delivery.pauses(attempt);
        *self.pause.lock() = PauseState::default();
    }

    async fn pause(&self, name: &ByteString, reason: String) {
        if let Err(error) = self.block.pause(name, Some(reason)).await {
            warn!(subscription = %name, %error, "a subscription cannot be paused");
        }
    }
}

/// The beginning of a text, at most [`limits::CAUSE_EXCERPT_BYTES`] of it.
fn excerpt(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(limits::CAUSE_EXCERPT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_bounded_and_ends_with_a_whole_character() {
        let long = excerpt("€".repeat(100_000));
        assert!(long.len() <= limits::CAUSE_EXCERPT_BYTES && long.len() > limits::CAUSE_EXCERPT_BYTES - 3);
        assert!(long.chars().all(|character| character == '€'));
        assert_eq!(excerpt("short".to_owned()), "short");
    }
}
