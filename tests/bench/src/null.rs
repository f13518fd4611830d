//! The gateway's own listener, guard, router and blocks on a log that acknowledges events at once and forgets them: what
//! publishing costs when storing costs nothing. Whatever else the gateway keeps (its catalogue, its slot) is stored as
//! always.

use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate::compose::{self, Opened, Settings};
use tidegate::edge::native::Health;
use tidegate::lifecycle::Signals;
use tidegate::telemetry::logging;
use tidegate_backbone::{
    Appended, BoxFuture, Capability, Environment, Error, LogId, LogInfo, LogSpec, PartitionLog, Position, Record,
    Result, Tail,
};
use tidegate_embedded::{EmbeddedLog, Options};
use tidegate_resources::config::{Backbone, Gateway};

use crate::Failure;
use crate::process::ServeArguments;

/// Serves until it is told to end.
pub(crate) fn serve(arguments: ServeArguments) -> std::result::Result<(), Failure> {
    let gateway = Gateway::default();
    // As in the gateway: an event that the logger drops still has to be dropped.
    let options =
        logging::Options { format: logging::Format::Pretty, filter: gateway.telemetry.log_level.as_str().to_owned() };
    logging::install(options, None)?;
    let settings = Settings {
        http: arguments.http,
        backbone: Backbone::embedded(&arguments.data),
        resources: None,
        request_sinks: tidegate::sink::AddressPolicy::Any,
        create_topics_on_first_use: true,
        development: true,
        limits: gateway.limits,
        log_filter: None,
        traces: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let data = arguments.data;
        let open = async |_: &Backbone, environment: &Environment| open(&data, environment);
        let running = compose::start_on(settings, open).await?;
        let document = serde_json::json!({ "http": running.http.to_string() });
        let beside = arguments.ready_file.with_extension("new");
        std::fs::write(&beside, document.to_string())?;
        std::fs::rename(&beside, &arguments.ready_file)?;
        signals.next().await;
        running.parts.stop().await;
        Ok(())
    })
}

fn open(directory: &Path, environment: &Environment) -> Result<Opened> {
    let stored = EmbeddedLog::open(Options::new(directory), environment)?;
    let log = Arc::new(NullLog { stored, position: AtomicU64::new(0) });
    Ok(Opened { log, lane: None, health: Health::new(|| None, || None), version: None })
}

/// Stores everything but events.
#[derive(Debug)]
struct NullLog {
    stored: Arc<EmbeddedLog>,
    position: AtomicU64,
}

impl PartitionLog for NullLog {
    fn capability(&self) -> &Capability {
        self.stored.capability()
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        self.stored.create(spec)
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        self.stored.delete(spec)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>> {
        self.stored.list()
    }

    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>> {
        self.stored.info(id)
    }

    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, std::result::Result<Appended, Error>> {
        match record {
            Record::Frame(_) => self.stored.append(id, record),
            Record::Event(_) => {
                let position = Position(self.position.fetch_add(1, Ordering::Relaxed));
                Box::pin(ready(Ok(Appended { position: Some(position) })))
            }
        }
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        self.stored.tail(id, from)
    }

    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>> {
        self.stored.lookup(id, unix_milliseconds)
    }

    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>> {
        self.stored.trim(id, before)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.stored.close()
    }
}
