//! Faults of real brokers under real gateways: what is told, that nothing acknowledged is missing afterwards, and that
//! everything goes on by itself once the fault is mended. `docs/faults.md` is the table of them.
//!
//! Where a fault is long or needs much of the machine, it is brought about only with `TIDEGATE_FAULTS=all`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

mod bare;
mod cut_off;
mod full;
mod loss;
mod nodes;
mod revoked;
mod secured;

use std::path::Path;

use tidegate_conformance::Broker;
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::gateway::{Gateway, Options};
use tidegate_tests::home::Home;
use tidegate_tests::load::Load;
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::{PATIENT_RETRY, Subscription};

/// Stands in every secret of a test, so that one that is shown is found.
const SECRET: &str = "secret";

/// A backbone as a configuration has it, and the secret in the variable that it names.
#[derive(Clone, Debug)]
struct Backbone {
    yaml: String,
    password: String,
}

impl Backbone {
    /// Over TLS as a user with a password; `ca` is a file of the broker's certificates.
    fn by_password(url: &str, tls: &Path, ca: &str, user: &str, password: &str) -> Self {
        let ca = tls.join(ca);
        let yaml = format!(
            "{{url: '{url}', credentials: {{user: {user}, password: {{secretKeyRef: {{name: BROKER_PASSWORD}}}}}}, tls: \
             {{ca: '{}'}}}}",
            ca.display()
        );
        Self { yaml, password: password.to_owned() }
    }

    /// Over TLS as the user of an nkey, on NATS.
    fn by_nkey(url: &str, tls: &Path, seed: &str) -> Self {
        let ca = tls.join("ca.pem");
        let yaml = format!(
            "{{url: '{url}', credentials: {{nkey: {{secretKeyRef: {{name: BROKER_PASSWORD}}}}}}, tls: {{ca: '{}'}}}}",
            ca.display()
        );
        Self { yaml, password: seed.to_owned() }
    }

    /// Over TLS by a certificate.
    fn by_certificate(url: &str, tls: &Path, name: Option<&str>) -> Self {
        let tls = tls.display();
        let identity = name.map(|name| format!(", certificate: '{tls}/{name}.pem', key: '{tls}/{name}.key'"));
        let yaml = format!("{{url: '{url}', tls: {{ca: '{tls}/ca.pem'{}}}}}", identity.unwrap_or_default());
        Self { yaml, password: String::new() }
    }

    /// The options of a gateway on it, whose topics are created on first use.
    fn options(&self, home: &Home) -> Options {
        let config = home.path().join("gateway.yaml");
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Gateway\nspec:\n  topics: {{createOnFirstUse: true}}\n  backbone: {}\n",
            self.yaml
        );
        std::fs::write(&config, text).expect("the folder is ours");
        let variables = vec![("BROKER_PASSWORD", self.password.clone())];
        Options { config: Some(config), variables, ..Options::default() }
    }

    /// Whether its secret, or one of another broker of these tests, stands in a text.
    fn is_shown_in(&self, text: &str) -> bool {
        text.contains(SECRET) || (!self.password.is_empty() && text.contains(&self.password))
    }

    async fn start(&self, home: &Home) -> Gateway {
        home.start_with(self.options(home)).await.unwrap_or_else(|refused| panic!("{refused}"))
    }
}

/// The URL of a broker over TLS, as the gateway has it.
fn over_tls(broker: &Broker) -> String {
    let addresses = broker.addresses().join(",");
    let scheme = match broker.name() {
        name if name.starts_with("kafka") => "kafka+ssl",
        name if name.starts_with("rabbitmq") => "amqps",
        _ => "tls+nats",
    };
    format!("{scheme}://{addresses}")
}

/// A load by so many producers, and a home with the subscription that delivers it to the sink, in the order of its keys and for
/// as long as a fault lasts.
async fn subscribed(producers: usize) -> (Sink, Home, Load) {
    let (sink, home) = (Sink::accepting().await, Home::new());
    let (to, delivery) = (sink.url(), ["order: key", PATIENT_RETRY]);
    let subscription = Subscription { name: "load", topics: &["load"], filters: &[], sink: &to, delivery: &delivery };
    home.write_resource("load.yaml", &subscription.yaml());
    (sink, home, Load::new("load", producers))
}

/// Publishes an event until it is acknowledged, as whoever publishes does.
async fn publish(client: &Client, topic: &str, id: &str) {
    tidegate_tests::cluster::until(&format!("that {id} is acknowledged"), async || {
        let event = Outgoing { id, ..Outgoing::default() };
        client.publish(topic, &event).await.is_ok_and(|answer| answer.status == 202)
    })
    .await;
}
