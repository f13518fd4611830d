//! Asks the sink of a subscription for its consent before anything is delivered, and keeps to the pace that it allows.

use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;
use tidegate_backbone::catalogue::HandshakeSpec;
use tidegate_backbone::consume::{Attempt, Delivery};
use tidegate_resources::Sink;
use tidegate_routing::Handshake;
use tidegate_routing::handshake::{Allowed, Rate, judge};
use tracing::{info, warn};

use super::PubSub;
use crate::sink::{Answer, Failure};

/// The consent of one subscription's sink. A subscription that does not ask for it has it.
pub(super) struct Consent {
    block: PubSub,
    state: Mutex<Handshake>,
}

/// What asking came to.
enum Asked {
    Granted(Rate),
    Refused(String),
    /// Nobody answered; the sink cannot have been sent an event.
    Unreachable(Attempt),
}

impl Consent {
    pub(super) fn new(block: PubSub) -> Self {
        Self { block, state: Mutex::default() }
    }

    fn now(&self) -> Duration {
        self.block.0.environment.clock.since_boot()
    }

    /// Waits until the next request may go out; false where the process stops first.
    pub(super) async fn pace(&self) -> bool {
        let stopping = self.block.0.environment.stopping();
        loop {
            let wait = self.state.lock().wait(self.now());
            if wait.is_zero() {
                return !stopping.is_cancelled();
            }
            tokio::select! {
                () = stopping.cancelled() => return false,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Gives the delivery back where it may go out. Otherwise it has been settled: it waits for a sink that can be reached,
    /// or the subscription pauses because its sink did not consent.
    pub(super) async fn check(&self, delivery: Delivery) -> Option<Delivery> {
        let spec = &delivery.subscription().spec;
        let Some(handshake) = &spec.request.handshake else { return Some(delivery) };
        let due = self.state.lock().is_due(self.now());
        if due {
            match self.ask(&delivery, handshake).await {
                Asked::Granted(rate) => {
                    info!(subscription = %spec.name, %rate, "a sink consents to be sent events");
                    self.state.lock().granted(rate, self.now());
                }
                Asked::Refused(reason) => {
                    self.state.lock().refused();
                    let name = spec.name.clone();
                    // Given back: it is nobody's failure.
                    drop(delivery);
                    let reason = format!(
                        "handshake-refused: {reason}; let the sink answer OPTIONS with WebHook-Allowed-Origin, then resume"
                    );
                    if let Err(error) = self.block.pause(&name, Some(reason)).await {
                        warn!(subscription = %name, %error, "a subscription cannot be paused");
                    }
                    return None;
                }
                Asked::Unreachable(attempt) => {
                    delivery.unreachable(&attempt);
                    return None;
                }
            }
        }
        self.state.lock().sent(self.now());
        Some(delivery)
    }

    async fn ask(&self, delivery: &Delivery, handshake: &HandshakeSpec) -> Asked {
        let began = tokio::time::Instant::now();
        let subscription = delivery.subscription();
        let target = match self.block.target(subscription) {
            Ok(target) => target,
            Err(reason) => return Asked::Refused(reason),
        };
        // Topics are not asked; what they are sent has its own way.
        let Sink::Http(http) = target.sink() else { return Asked::Granted(Rate::Unlimited) };
        let headers = target.write_question(handshake);
        let answer = self.block.0.sinks.http.ask(target.route(http.uri()), headers, subscription.spec.timeout).await;
        match answer {
            Ok(answer) => judged(handshake, &answer),
            Err(Failure::Unreachable(detail) | Failure::NoAnswer(detail)) => {
                let detail = format!("the question for consent was not answered: {detail}");
                Asked::Unreachable(Attempt { took: began.elapsed(), status: None, detail })
            }
            Err(failure @ (Failure::Forbidden(_) | Failure::Invalid(_))) => Asked::Refused(failure.to_string()),
        }
    }
}

fn judged(handshake: &HandshakeSpec, answer: &Answer) -> Asked {
    let allowed = Allowed {
        origin: text(&answer.headers, "webhook-allowed-origin"),
        rate: text(&answer.headers, "webhook-allowed-rate"),
    };
    match judge(&handshake.origin, handshake.rate, allowed) {
        Ok(rate) => Asked::Granted(rate),
        Err(refusal) => Asked::Refused(format!("{refusal} (status {})", answer.status.as_u16())),
    }
}

/// A header as text; what is none is as good as missing.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
