//! What each case runs on: a share of a broker, or a broker of its own behind a fault proxy.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_backbone::{BoxFuture, Environment, Lane, LogSpec, PartitionLog, Result};
use tidegate_conformance::{Act, Broker, Fixture, Linked, Proxy};
use tidegate_kafka::{KafkaBroker, Options};

/// How often a broker is asked to create a topic that has just begun to run.
const FIRST_TOPICS: u32 = 20;

/// Waits until the broker creates topics as fast as it will: the first ones after its start take it, on a busy machine, longer
/// than anybody waits for them.
pub(crate) async fn ready(url: &str) {
    let environment = Environment::system();
    for round in 0..FIRST_TOPICS {
        let mut options = Options::from_url(url).expect("the script prints URLs");
        options.namespace = "conformance.first".to_owned();
        let began = tokio::time::Instant::now();
        let Ok(client) = KafkaBroker::open(options, &environment).await else { continue };
        let created = client.create(LogSpec::topic(format!("first-{}-{round}", std::process::id()), 1)).await;
        client.close().await;
        if created.is_ok() && began.elapsed() < Duration::from_secs(2) {
            break;
        }
    }
    environment.stop(Duration::from_secs(10)).await;
}

/// One case's share of a broker: names that no other case uses.
pub(crate) struct Share {
    options: Options,
    /// Where the broker is this case's alone.
    linked: Option<Linked>,
    clients: Mutex<Vec<Arc<KafkaBroker>>>,
}

/// What a case is given; none where this machine cannot have the broker.
pub(crate) type Made = Option<Arc<dyn Fixture>>;

impl Share {
    fn make(url: &str, name: &str, linked: Option<Linked>) -> Arc<dyn Fixture> {
        let mut options = Options::from_url(url).expect("the script prints URLs");
        options.namespace = format!("conformance.{name}");
        options.topic_prefix = format!("{name}.");
        // The catalogue's, and one for deliveries.
        options.slots = 2;
        Arc::new(Self { options, linked, clients: Mutex::default() })
    }

    /// Of a broker that others use.
    pub(crate) fn of(url: &str, name: &str) -> Arc<dyn Fixture> {
        Self::make(url, name, None)
    }

    /// A broker of its own, with a proxy before each node.
    pub(crate) async fn behind_proxies(broker: &str, name: &str) -> Made {
        let linked = Linked::start(broker).await?;
        ready(&linked.url()).await;
        Some(Self::make(&linked.url(), name, Some(linked)))
    }

    async fn client(&self, environment: &Environment) -> Result<Arc<KafkaBroker>> {
        let client = KafkaBroker::open(self.options.clone(), environment).await?;
        self.clients.lock().push(Arc::clone(&client));
        Ok(client)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Most cases end amid their work. What runs on must not keep the broker busy for those that come.
        for client in std::mem::take(self.clients.get_mut()) {
            drop(Environment::system().spawn(async move { client.abort().await }));
        }
    }
}

impl Fixture for Share {
    fn open<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>> {
        Box::pin(async move { Ok(self.client(environment).await? as Arc<dyn PartitionLog>) })
    }

    /// Topics of ours have the time of the broker, which runs on this machine.
    fn stamps_by_the_machine(&self) -> bool {
        true
    }

    fn open_lane<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn Lane>>> {
        Box::pin(async move { Ok(self.client(environment).await? as Arc<dyn Lane>) })
    }

    fn crash(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let clients = std::mem::take(&mut *self.clients.lock());
            for client in clients {
                client.abort().await;
            }
        })
    }

    fn proxies(&self) -> &[Proxy] {
        self.linked.as_ref().map(Linked::proxies).unwrap_or_default()
    }

    fn act(&self, act: Act, node: Option<u32>) -> BoxFuture<'_, ()> {
        let broker = self.linked.as_ref().expect("only cases with a broker of their own do this").broker();
        Box::pin(broker.act(act, node))
    }
}

/// What the broker is, for the document.
pub(crate) fn version(broker: &Broker) -> String {
    if !broker.is_ours() {
        return "Apache Kafka as the environment gives it".to_owned();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/brokers/kafka.lock");
    let text = std::fs::read_to_string(path).expect("what scripts/brokers fetches is listed");
    let name = text.trim_start_matches("# ").split(" as Maven").next().unwrap_or_default();
    assert!(name.starts_with("Apache Kafka "), "the first line of tests/brokers/kafka.lock names the version: {name}");
    name.to_owned()
}
