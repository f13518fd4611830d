//! What each case runs on: a share of a broker, or a broker of its own behind a fault proxy.

use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_backbone::{BoxFuture, Environment, Lane, PartitionLog, Result};
use tidegate_conformance::{Act, Broker, Fixture, Linked, Proxy};
use tidegate_rabbitmq::{Options, RabbitBroker};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One case's share of a broker: names that no other case uses.
pub(crate) struct Share {
    options: Options,
    /// Where the broker is this case's alone.
    linked: Option<Linked>,
    clients: Mutex<Vec<Arc<RabbitBroker>>>,
}

/// What a case is given; none where this machine cannot have the broker.
pub(crate) type Made = Option<Arc<dyn Fixture>>;

impl Share {
    fn make(url: &str, name: &str, linked: Option<Linked>) -> Arc<dyn Fixture> {
        let mut options = Options::from_url(url).expect("the script prints URLs");
        options.namespace = format!("c.{name}");
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
        Some(Self::make(&linked.url(), name, Some(linked)))
    }

    async fn client(&self, environment: &Environment) -> Result<Arc<RabbitBroker>> {
        let client = RabbitBroker::open(self.options.clone(), environment).await?;
        self.clients.lock().push(Arc::clone(&client));
        Ok(client)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Most cases end amid their work. What runs on must not keep the broker busy for those that come.
        for client in std::mem::take(self.clients.get_mut()) {
            client.kill();
        }
    }
}

impl Fixture for Share {
    fn open<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>> {
        Box::pin(async move { Ok(self.client(environment).await? as Arc<dyn PartitionLog>) })
    }

    fn open_lane<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn Lane>>> {
        Box::pin(async move { Ok(self.client(environment).await? as Arc<dyn Lane>) })
    }

    fn crash(&self) -> BoxFuture<'_, ()> {
        for client in std::mem::take(&mut *self.clients.lock()) {
            client.kill();
        }
        Box::pin(async {})
    }

    fn proxies(&self) -> &[Proxy] {
        self.linked.as_ref().map(Linked::proxies).unwrap_or_default()
    }

    fn act(&self, act: Act, node: Option<u32>) -> BoxFuture<'_, ()> {
        let broker = self.linked.as_ref().expect("only cases with a broker of their own do this").broker();
        Box::pin(broker.act(act, node))
    }
}

/// What the broker says of its version when somebody connects (AMQP 0.9.1, `connection.start`).
pub(crate) async fn version(broker: &Broker) -> String {
    const NAME: &[u8] = b"\x07versionS";
    let mut stream = TcpStream::connect(broker.addresses().remove(0)).await.expect("the broker was used until now");
    stream.write_all(b"AMQP\0\0\x09\x01").await.expect("the broker was used until now");
    let mut said = Vec::new();
    loop {
        let begin = said.windows(NAME.len()).position(|part| part == NAME).map(|at| at + NAME.len());
        let length = begin.and_then(|begin| said[begin..].first_chunk().map(|length| u32::from_be_bytes(*length)));
        if let (Some(begin), Some(length)) = (begin, length)
            && let Some(version) = said.get(begin + 4..begin + 4 + length as usize)
        {
            return format!("RabbitMQ {}", String::from_utf8_lossy(version));
        }
        let read = stream.read_buf(&mut said).await.expect("the broker says what it is");
        assert!(read > 0, "the broker says no version");
    }
}
