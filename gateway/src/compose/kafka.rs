//! Apache Kafka.

use tidegate_backbone::{Environment, Error};
use tidegate_kafka::{KafkaBroker, Options, Sasl, Tls};
use tidegate_resources::config::{self, Backbone, BackboneUrl};

use super::backbone::{Opened, unfit};

pub(super) async fn open(backbone: &Backbone, environment: &Environment) -> Result<Opened, Error> {
    let broker = KafkaBroker::open(options(backbone)?, environment).await?;
    // The protocol tells which requests a broker knows, and not its version.
    Ok(Opened::shared(broker, KafkaBroker::unreachable, None))
}

fn options(backbone: &Backbone) -> Result<Options, Error> {
    let BackboneUrl::Broker { tls, hosts, .. } = &backbone.url else { return Err(unfit(backbone)) };
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut options = Options::from_url(&format!("kafka://{}", hosts.join(",")))?;
    options.tls = tls.then(|| Tls { ca: backbone.tls.ca.clone(), identity: backbone.tls.identity.clone() });
    options.sasl = match &backbone.credentials {
        None => None,
        Some(config::Credentials::Password { user, password, mechanism }) => Some(Sasl {
            mechanism: mechanism.sasl().to_owned(),
            user: user.clone(),
            password: password.expose().to_owned(),
        }),
        Some(_) => return Err(unfit(backbone)),
    };
    options.namespace.clone_from(&backbone.namespace);
    options.topic_prefix.clone_from(&backbone.topic_prefix);
    options.slots = backbone.slots.unwrap_or(options.slots);
    options.replication = backbone.replicas.and_then(|replicas| u16::try_from(replicas).ok());
    Ok(options)
}
