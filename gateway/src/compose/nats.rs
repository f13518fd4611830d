//! NATS JetStream.

use tidegate_backbone::{Environment, Error};
use tidegate_nats::{Credentials, NatsBroker, Options};
use tidegate_resources::config::{self, Backbone};

use super::backbone::{Opened, unfit};

pub(super) async fn open(backbone: &Backbone, environment: &Environment) -> Result<Opened, Error> {
    let broker = NatsBroker::open(options(backbone)?, environment).await?;
    let version = broker.version();
    Ok(Opened::shared(broker, NatsBroker::unreachable, version))
}

fn options(backbone: &Backbone) -> Result<Options, Error> {
    let mut options = Options::new(&backbone.url.to_string())?;
    options.credentials = match &backbone.credentials {
        None => Credentials::None,
        Some(config::Credentials::Password { user, password, .. }) => {
            Credentials::User { user: user.clone(), password: password.expose().to_owned() }
        }
        Some(config::Credentials::Token(token)) => Credentials::Token(token.expose().to_owned()),
        Some(config::Credentials::Nkey(seed)) => Credentials::NkeySeed(seed.expose().to_owned()),
        Some(config::Credentials::File(path)) => Credentials::File(path.clone()),
        Some(_) => return Err(unfit(backbone)),
    };
    options.tls.ca_file.clone_from(&backbone.tls.ca);
    if let Some((certificate, key)) = &backbone.tls.identity {
        options.tls.certificate_file = Some(certificate.clone());
        options.tls.key_file = Some(key.clone());
    }
    options.namespace.clone_from(&backbone.namespace);
    options.topic_prefix.clone_from(&backbone.topic_prefix);
    options.slots = backbone.slots.unwrap_or(options.slots);
    options.replicas = backbone.replicas;
    Ok(options)
}
