//! RabbitMQ.

use std::sync::Arc;

use tidegate_backbone::queues::Queues;
use tidegate_backbone::{Environment, Error};
use tidegate_rabbitmq::{Options, RabbitBroker, RabbitQueues, Tls};
use tidegate_resources::config::{self, Backbone, BackboneUrl};

use super::backbone::{Opened, unfit};

pub(super) async fn open(backbone: &Backbone, environment: &Environment) -> Result<Opened, Error> {
    let broker = RabbitBroker::open(options(backbone)?, environment).await?;
    // The client library keeps to itself what the broker tells of its version.
    Ok(Opened::shared(broker, RabbitBroker::unreachable, None))
}

/// Its queues and exchanges, which are reached when they are first needed.
pub(super) fn queues(backbone: &Backbone, environment: &Environment) -> Result<Arc<dyn Queues>, Error> {
    Ok(Arc::new(RabbitQueues::new(options(backbone)?, environment)?))
}

fn options(backbone: &Backbone) -> Result<Options, Error> {
    let BackboneUrl::Broker { tls, hosts, vhost, .. } = &backbone.url else { return Err(unfit(backbone)) };
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut options = Options::from_url(&format!("amqp://{}", hosts.join(",")))?;
    options.tls = tls.then(|| Tls { ca: backbone.tls.ca.clone(), identity: backbone.tls.identity.clone() });
    match &backbone.credentials {
        None => {}
        Some(config::Credentials::Password { user, password, .. }) => {
            options.user.clone_from(user);
            password.expose().clone_into(&mut options.password);
        }
        Some(_) => return Err(unfit(backbone)),
    }
    if let Some(vhost) = vhost {
        options.vhost.clone_from(vhost);
    }
    options.namespace.clone_from(&backbone.namespace);
    options.topic_prefix.clone_from(&backbone.topic_prefix);
    options.slots = backbone.slots.unwrap_or(options.slots);
    options.replicas = backbone.replicas;
    Ok(options)
}
