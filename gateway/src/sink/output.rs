use std::collections::HashMap;
use std::sync::Arc;

use bytestring::ByteString;
use parking_lot::{Mutex, RwLock};
use tidegate_backbone::queues::{Address, QueueBrokers, Sent};
use tidegate_backbone::{Error, ErrorKind};
use tidegate_resources::{Binding, Direction, Output, Resources};
use tidegate_routing::{RetryHint, Verdict};
use tidegate_schemas::Event;

/// The output bindings that files declare, by name, as sinks of subscriptions. Clones share them.
#[derive(Clone, Debug)]
pub struct Outputs {
    brokers: QueueBrokers,
    declared: Arc<RwLock<HashMap<String, Arc<Known>>>>,
}

/// An output that is declared.
#[derive(Debug)]
struct Known {
    binding: Binding,
    /// Why nothing could go there, as it was found last.
    hindrance: Mutex<Option<String>>,
}

/// Why an event did not get to where an output binding sends it.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// This gateway knows no such output. Another one may have the file, and this one get it.
    #[error(
        "this gateway has no output binding {0}; declare it in the resource files of every gateway (kind: Binding)"
    )]
    Unknown(String),
    /// The event can have no routing key.
    #[error("{0}; send such events elsewhere by a filter, or change the binding's routingKey")]
    Unaddressable(String),
    /// An exchange has no queue for it.
    #[error("no queue takes a message that is sent to {0}; bind one to the exchange")]
    Nobody(Address),
    /// There is no such queue.
    #[error("there is no queue {0} on the broker; create it, or name another one")]
    NoQueue(ByteString),
    /// The broker refuses the message.
    #[error("the broker refuses a message that is sent to {0}: a queue is full, or could not store it")]
    Refused(Address),
    /// It cannot be reached, or does not do what it is asked for.
    #[error(transparent)]
    Broker(#[from] Error),
}

impl Unsent {
    /// What it means for the delivery. What is not there or refuses everybody waits for whoever mends it, and uses up no
    /// attempt; what says no to this message is asked again by the subscription's policy.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unknown(_) | Self::NoQueue(_) => Verdict::Unreachable,
            Self::Unaddressable(_) => Verdict::EventAtFault,
            Self::Nobody(_) | Self::Refused(_) => Verdict::Retry(RetryHint::default()),
            Self::Broker(error) => match error.kind() {
                ErrorKind::TooLarge { .. } => Verdict::EventAtFault,
                _ => Verdict::Unreachable,
            },
        }
    }
}

impl Outputs {
    /// None yet; they are on these brokers.
    pub fn new(brokers: QueueBrokers) -> Self {
        Self { brokers, declared: Arc::default() }
    }

    /// Puts what the files declare in place of what they declared before.
    pub fn apply(&self, resources: &Resources) {
        let is_output = |binding: &&Binding| matches!(binding.direction, Direction::Output(_));
        let outputs = resources.bindings.iter().filter(is_output);
        let known = |binding: &Binding| Arc::new(Known { binding: binding.clone(), hindrance: Mutex::default() });
        *self.declared.write() = outputs.map(|binding| (binding.name.clone(), known(binding))).collect();
    }

    /// Why nothing can go to the binding of that name, as whoever sent there last from this gateway found; nothing where
    /// it went, or was refused for its own sake.
    pub fn hindrance(&self, name: &str) -> Option<String> {
        self.declared.read().get(name)?.hindrance.lock().clone()
    }

    /// Sends an event to where the binding of that name says, and waits until the broker has confirmed it.
    ///
    /// # Errors
    /// It was not confirmed; [`Unsent::verdict`] says what follows.
    pub async fn send(&self, name: &str, event: Event) -> Result<(), Unsent> {
        let known = self.declared.read().get(name).cloned();
        let known = known.ok_or_else(|| Unsent::Unknown(name.to_owned()))?;
        let sent = self.send_to(&known.binding, event).await;
        let hindered = sent.as_ref().err().filter(|unsent| unsent.verdict() == Verdict::Unreachable);
        let hindrance = hindered.map(ToString::to_string);
        *known.hindrance.lock() = hindrance;
        sent
    }

    async fn send_to(&self, binding: &Binding, event: Event) -> Result<(), Unsent> {
        let Direction::Output(output) = &binding.direction else { return Err(Unsent::Unknown(binding.name.clone())) };
        let to = match output {
            Output::Queue(queue) => Address::Queue(queue.as_str().into()),
            Output::Exchange { exchange, routing_key } => {
                let routing_key = routing_key.of(&event).map_err(Unsent::Unaddressable)?.into();
                Address::Exchange { exchange: exchange.as_str().into(), routing_key }
            }
        };
        let sent = self.brokers.get(&binding.broker)?.send(&to, event).await?;
        match (sent, to) {
            (Sent::Stored, _) => Ok(()),
            (Sent::Nobody, Address::Queue(queue)) => Err(Unsent::NoQueue(queue)),
            (Sent::Nobody, to @ Address::Exchange { .. }) => Err(Unsent::Nobody(to)),
            (Sent::Refused, to) => Err(Unsent::Refused(to)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_waits_and_what_says_no_is_asked_again() {
        let to = || Address::Exchange { exchange: "e".into(), routing_key: "k".into() };
        let broker = |kind| Unsent::Broker(Error::new(kind, "no"));
        for (unsent, verdict) in [
            (Unsent::Unknown("b".to_owned()), Verdict::Unreachable),
            (Unsent::NoQueue("q".into()), Verdict::Unreachable),
            (broker(ErrorKind::Denied), Verdict::Unreachable),
            (broker(ErrorKind::Unknown), Verdict::Unreachable),
            (broker(ErrorKind::TooLarge { limit_bytes: 1 }), Verdict::EventAtFault),
            (Unsent::Unaddressable("the event has no attribute x".to_owned()), Verdict::EventAtFault),
            (Unsent::Nobody(to()), Verdict::Retry(RetryHint::default())),
            (Unsent::Refused(to()), Verdict::Retry(RetryHint::default())),
        ] {
            assert_eq!(unsent.verdict(), verdict, "{unsent}");
        }
    }

    #[tokio::test]
    async fn an_output_that_is_declared_no_longer_is_not_known() {
        let outputs = Outputs::new(QueueBrokers::default());
        let text = "{apiVersion: tidegate.dev/v1, kind: Broker, metadata: {name: l}, spec: {url: 'amqp://h'}}\n---\n\
                    {apiVersion: tidegate.dev/v1, kind: Binding, metadata: {name: out}, spec: {broker: l, output: {exchange: e, routingKey: '{subject}'}}}";
        let event = || Event::builder("1", "/s", "t").build().unwrap();
        outputs.apply(&tidegate_resources::parse("f.yaml", text, &|_| None).unwrap());
        assert!(
            matches!(outputs.send("out", event()).await, Err(Unsent::Unaddressable(_))),
            "no event without a subject"
        );
        let event_with = event().into_builder().subject("s").build().unwrap();
        let refused = outputs.send("out", event_with).await.unwrap_err();
        assert!(refused.to_string().contains("knows no broker l with queues"), "{refused}");
        assert_eq!(outputs.hindrance("out"), Some(refused.to_string()));
        assert!(outputs.send("out", event()).await.is_err());
        assert_eq!(outputs.hindrance("out"), None, "that one was at fault by itself");
        outputs.apply(&Resources::default());
        assert!(matches!(outputs.send("out", event()).await, Err(Unsent::Unknown(_))));
    }
}
