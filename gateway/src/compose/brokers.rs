//! The brokers beside the backbone that files declare: each is opened as a backbone would be, and nothing waits for it.

use std::collections::HashMap;
use std::sync::Arc;

use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_backbone::bridge::{Bridges, FarLog, Opener};
use tidegate_backbone::migrate::{Target, Targets};
use tidegate_backbone::queues::QueueBrokers;
use tidegate_backbone::{BoxFuture, Environment, Error, ErrorKind, Result};
use tidegate_resources::Resources;
use tidegate_resources::config::Backbone;

use super::backbone;

/// What is reached beside the backbone.
#[derive(Debug)]
pub(super) struct Brokers {
    bridges: Arc<Bridges>,
    queues: QueueBrokers,
    environment: Environment,
    known: Mutex<HashMap<String, Backbone>>,
}

impl Brokers {
    pub(super) fn new(bridges: Arc<Bridges>, queues: QueueBrokers, environment: &Environment) -> Self {
        Self { bridges, queues, environment: environment.clone(), known: Mutex::default() }
    }

    /// Brings what is reached to what files declare. What stayed as it was is not touched.
    pub(super) fn apply(&self, resources: &Resources) {
        let mut known = self.known.lock();
        known.retain(|name, _| {
            let stays = resources.brokers.iter().any(|broker| broker.name == *name);
            if !stays {
                tracing::info!(broker = name, "no file declares a further broker any more");
                self.bridges.remove(name);
                self.queues.remove(name);
            }
            stays
        });
        for broker in &resources.brokers {
            if known.get(&broker.name) == Some(&broker.settings) {
                continue;
            }
            known.insert(broker.name.clone(), broker.settings.clone());
            // That one belongs to one process, which opens it when the backbone is migrated there.
            if broker.settings.url.broker().is_none() {
                self.bridges.remove(&broker.name);
                continue;
            }
            let opener = Declared { settings: broker.settings.clone(), environment: self.environment.clone() };
            let name = ByteString::from(broker.name.as_str());
            self.bridges.put(name.clone(), Arc::new(opener));
            match backbone::queues(&broker.settings, &self.environment) {
                Some(Ok(queues)) => self.queues.put(name, queues),
                Some(Err(error)) => {
                    tracing::error!(broker = %name, %error, "the queues of a further broker cannot be used")
                }
                None => self.queues.remove(&name),
            }
        }
    }
}

impl Targets for Brokers {
    fn open<'a>(&'a self, name: &'a str, environment: &'a Environment) -> BoxFuture<'a, Result<Target>> {
        Box::pin(async move {
            let settings = self.known.lock().get(name).cloned().ok_or_else(|| {
                let context = format!(
                    "this gateway knows no broker {name}; declare it in its resources: `kind: Broker`, `metadata: {{name: {name}}}`, \
                     `spec: {{url: …}}`"
                );
                Error::new(ErrorKind::NotFound, context)
            })?;
            let opened = backbone::open_once(&settings, environment).await?;
            Ok(Target { log: opened.log, lane: opened.lane, name: settings.to_string() })
        })
    }
}

/// Opens what a file declares.
#[derive(Debug)]
struct Declared {
    settings: Backbone,
    environment: Environment,
}

impl Opener for Declared {
    fn open(&self) -> BoxFuture<'_, Result<FarLog>> {
        Box::pin(async move {
            let opened = backbone::open_once(&self.settings, &self.environment).await?;
            let health = opened.health;
            Ok(FarLog { log: opened.log, unreachable: Arc::new(move || health.unreachable()) })
        })
    }
}
