//! Queues and exchanges of others ([`Queues`]), over connections of their own: a broker is of use here that has no streams, and
//! a user that may write to one exchange only.

mod receive;
mod send;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_backbone::queues::{Address, Intake, Queues, Sent, Source};
use tidegate_backbone::{BoxFuture, Environment, Result};
use tidegate_schemas::{Event, limits};
use tokio::time::Instant;

use crate::connection::Link;
use crate::error::{closed, unavailable};
use crate::options::Options;
use crate::stream::tls;

use send::Outbox;

/// The queues and exchanges of a broker.
pub struct RabbitQueues {
    outbox: Arc<Outbox>,
    reading: Lazy,
    door: Arc<Door>,
}

impl fmt::Debug for RabbitQueues {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RabbitQueues").field("unreachable", &self.unreachable()).finish_non_exhaustive()
    }
}

impl RabbitQueues {
    /// Nothing is connected before it is needed. What runs ends with the environment, or with [`Queues::close`].
    ///
    /// # Errors
    /// [`tidegate_backbone::ErrorKind::Misconfigured`] where the options cannot be used.
    pub fn new(options: Options, environment: &Environment) -> Result<Self> {
        options.check()?;
        let door =
            Arc::new(Door { options: Arc::new(options), environment: environment.child(), told: Mutex::default() });
        let reading = Lazy::new("messages of queues", Arc::clone(&door));
        Ok(Self { outbox: Arc::new(Outbox::new(Arc::clone(&door))), reading, door })
    }
}

impl Queues for RabbitQueues {
    fn send(&self, to: &Address, event: Event) -> BoxFuture<'static, Result<Sent>> {
        let (outbox, to) = (Arc::clone(&self.outbox), to.clone());
        Box::pin(async move { outbox.send(to, event).await })
    }

    fn receive<'a>(
        &'a self,
        reader: &'a str,
        source: &'a Source,
        prefetch: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Intake>>> {
        Box::pin(async move {
            let link = self.reading.link().await?;
            let door = &self.door;
            let (memory, options) = (&door.environment.memory, &door.options);
            let reader = receive::Reader { link, memory, options, name: reader };
            Ok(Box::new(reader.open(source, prefetch).await?) as Box<dyn Intake>)
        })
    }

    fn unreachable(&self) -> Option<String> {
        self.door
            .told
            .lock()
            .clone()
            .or_else(|| self.outbox.unreachable())
            .or_else(|| self.reading.known()?.unreachable())
    }

    fn close(&self) {
        self.outbox.close();
        self.reading.close();
        self.door.environment.stopping().cancel();
    }
}

impl Drop for RabbitQueues {
    fn drop(&mut self) {
        self.close();
    }
}

/// What connections are made of.
struct Door {
    options: Arc<Options>,
    environment: Environment,
    /// Why the first connection could not be made.
    told: Mutex<Option<String>>,
}

/// A connection that is made when it is first needed.
struct Lazy {
    purpose: &'static str,
    door: Arc<Door>,
    made: tokio::sync::Mutex<Made>,
    /// The same, for those who only look.
    link: Mutex<Option<Arc<Link>>>,
}

#[derive(Default)]
struct Made {
    link: Option<Arc<Link>>,
    /// When it was tried last, and what came of it.
    failed: Option<(Instant, tidegate_backbone::ErrorKind, String)>,
}

impl Lazy {
    fn new(purpose: &'static str, door: Arc<Door>) -> Self {
        Self { purpose, door, made: tokio::sync::Mutex::default(), link: Mutex::default() }
    }

    /// The connection. Many may ask at once while the broker is away: one of them tries, and the others hear what it heard.
    async fn link(&self) -> Result<Arc<Link>> {
        if self.door.environment.stopping().is_cancelled() {
            return Err(closed());
        }
        let mut made = self.made.lock().await;
        if let Some(link) = &made.link {
            return Ok(Arc::clone(link));
        }
        if let Some((at, kind, said)) = &made.failed
            && at.elapsed() < limits::RABBITMQ_RECONNECT_DELAY_MAX
        {
            return Err(tidegate_backbone::Error::new(kind.clone(), said.clone()));
        }
        let opened = async {
            let tls = tls(&self.door.options)?;
            Link::open(self.purpose, &self.door.options, tls, &self.door.environment).await
        };
        match opened.await {
            Ok(link) => {
                made.link = Some(Arc::clone(&link));
                *self.link.lock() = Some(Arc::clone(&link));
                *self.door.told.lock() = None;
                if self.door.environment.stopping().is_cancelled() {
                    link.set_closed();
                    link.cut();
                }
                Ok(link)
            }
            Err(error) => {
                made.failed = Some((Instant::now(), error.kind().clone(), error.to_string()));
                *self.door.told.lock() = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn known(&self) -> Option<Arc<Link>> {
        self.link.lock().clone()
    }

    fn close(&self) {
        if let Some(link) = self.known() {
            link.set_closed();
            link.cut();
        }
    }

    /// Fails where the broker was reached and cannot be now.
    fn require(link: &Link, what: &str) -> Result<()> {
        match link.unreachable() {
            Some(reason) => Err(unavailable(format!("{what}: {reason}"))),
            None => Ok(()),
        }
    }
}
