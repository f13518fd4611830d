//! What the suite is given of NATS: parts of a server, and servers behind fault proxies.

use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_backbone::{BoxFuture, Environment, Lane, PartitionLog, Result};
use tidegate_conformance::{Act, Fixture, Linked, Proxy};
use tidegate_nats::{NatsBroker, Options};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

/// None where this machine has no such server.
pub(crate) type Made = Option<Arc<dyn Fixture>>;

/// A part of a server that no other case uses.
pub(crate) struct Part {
    options: Options,
    client: Mutex<Option<Arc<NatsBroker>>>,
    /// Servers that nobody else uses, where the case does something to them.
    linked: Option<Linked>,
}

impl Part {
    /// One of that number, on a server that cases share.
    pub(crate) fn of(url: &str, part: u64) -> Arc<dyn Fixture> {
        Self::make(url, &format!("part-{part}"), None)
    }

    /// On servers of its own, behind proxies.
    pub(crate) async fn behind_proxies(server: &str) -> Made {
        let linked = Linked::start(server).await?;
        Some(Self::make(&linked.url(), "alone", Some(linked)))
    }

    fn make(url: &str, name: &str, linked: Option<Linked>) -> Arc<dyn Fixture> {
        let mut options = Options::new(url).expect("servers and proxies have addresses");
        options.namespace = name.to_owned();
        options.topic_prefix = format!("{name}.");
        // The catalogue's, and one for deliveries.
        options.slots = 2;
        Arc::new(Self { options, client: Mutex::new(None), linked })
    }
}

impl Fixture for Part {
    fn open<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>> {
        Box::pin(async move {
            let client = NatsBroker::open(self.options.clone(), environment).await?;
            *self.client.lock() = Some(Arc::clone(&client));
            Ok(client as Arc<dyn PartitionLog>)
        })
    }

    fn stamps_by_the_machine(&self) -> bool {
        true
    }

    fn crash(&self) -> BoxFuture<'_, ()> {
        if let Some(client) = self.client.lock().take() {
            client.kill();
        }
        Box::pin(async {})
    }

    fn open_lane<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn Lane>>> {
        Box::pin(async move { Ok(NatsBroker::open(self.options.clone(), environment).await? as Arc<dyn Lane>) })
    }

    fn proxies(&self) -> &[Proxy] {
        self.linked.as_ref().map(Linked::proxies).unwrap_or_default()
    }

    fn act(&self, act: Act, node: Option<u32>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let linked = self.linked.as_ref().expect("only cases whose needs say so act on servers");
            linked.broker().act(act, node).await;
        })
    }
}

/// What the server at that address says of its version when somebody connects.
pub(crate) async fn version(url: &str) -> String {
    let address = url.rsplit_once("://").map_or(url, |(_, address)| address);
    let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
    let stream = TcpStream::connect(address).await.expect("the server was used until now");
    let mut said = String::new();
    BufReader::new(stream).read_line(&mut said).await.expect("a server of NATS speaks first");
    let information = said.strip_prefix("INFO ").expect("a server of NATS says INFO first");
    let information: serde_json::Value = serde_json::from_str(information).expect("INFO is JSON");
    information["version"].as_str().expect("INFO has the version").to_owned()
}
