//! What a server refuses, and how that is told. Every refusal has its control: the same with what is right.

use std::time::Duration;

use bytes::Bytes;
use tidegate_backbone::{Applied, Environment, Error, ErrorKind, LogSpec, PartitionLog as _, Record};
use tidegate_conformance::Broker;
use tidegate_nats::{Credentials, NatsBroker, Options};
use tidegate_schemas::Event;
use tidegate_schemas::event::Data;
use tidegate_schemas::limits::Limits;

use super::{event, open, options, partition, slot};

pub(super) fn changed(options: &Options, change: impl FnOnce(&mut Options)) -> Options {
    let mut options = options.clone();
    change(&mut options);
    options
}

pub(super) async fn refused(options: &Options) -> Error {
    let environment = Environment::system();
    let opened = NatsBroker::open(options.clone(), &environment);
    let opened = tokio::time::timeout(Duration::from_secs(20), opened);
    let error = opened.await.expect("a refusal comes at once").expect_err("it is refused");
    assert_eq!(error.applied(), Applied::No);
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_is_told() {
    // A port that was free a moment ago, at which nobody listens.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = refused(&options(&format!("nats://{address}"))).await;
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let error = refused(&options("nats://no-such-host.invalid")).await;
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    // Something listens there, and it is no NATS.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = refused(&options(&format!("nats://{}", silent.local_addr().unwrap()))).await;
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
}

/// A server of another kind than the script starts.
pub(super) struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the binary of the running broker once more with that configuration, on a free port of its own.
pub(super) async fn configured(
    broker: &Broker,
    folder: &std::path::Path,
    configuration: &str,
) -> Option<(Server, String)> {
    let binary = binary(broker)?;
    let path = folder.join("server.conf");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    std::fs::write(&path, format!("listen: \"{address}\"\n{configuration}\n")).unwrap();
    let child = std::process::Command::new(binary).arg("-c").arg(&path).stderr(std::process::Stdio::null()).spawn();
    let server = Server(child.expect("it was started before"));
    while tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Some((server, format!("nats://{address}")))
}

/// The program that serves the broker.
fn binary(broker: &Broker) -> Option<std::path::PathBuf> {
    let process = std::fs::read_to_string(broker.folder()?.join("1/pid")).ok()?;
    std::fs::read_link(format!("/proc/{}/exe", process.split_whitespace().next()?)).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_not_fit() {
    let Some(broker) = Broker::start("nats").await.filter(Broker::is_ours) else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = |name: &str| format!("jetstream {{ store_dir: \"{}\" }}", folder.path().join(name).display());

    let (without, url) = configured(&broker, folder.path(), "").await.expect("the script tells the process");
    let error = refused(&options(&url)).await;
    assert!(*error.kind() == ErrorKind::Misconfigured && error.to_string().contains("-js"), "{error}");
    drop(without);

    let small = format!("max_payload: 100000\n{}", store("small"));
    let (small, url) = configured(&broker, folder.path(), &small).await.unwrap();
    let error = refused(&options(&url)).await;
    assert!(*error.kind() == ErrorKind::Misconfigured && error.to_string().contains("max_payload"), "{error}");
    drop(small);

    // A user who may do all but what is needed for topics.
    let permissions = r#"authorization { users: [
        { user: all, password: all }
        { user: some, password: some, permissions: { publish: { allow: ["$JS.API.>", "permitted.>"] }, subscribe: ">" } }
        { user: none, password: none, permissions: { publish: ["_INBOX.>"], subscribe: ">" } }
    ] }"#;
    let permitted = format!("{permissions}\n{}", store("permitted"));
    let (_permitted, url) = configured(&broker, folder.path(), &permitted).await.unwrap();
    let mut all = options(&url);
    all.namespace = "permitted".to_owned();
    let user = |name: &str| Credentials::User { user: name.to_owned(), password: name.to_owned() };
    all.credentials = user("all");
    let error = refused(&changed(&all, |options| options.credentials = user("none"))).await;
    assert!(*error.kind() == ErrorKind::Denied && error.to_string().contains("$JS.API.STREAM.CREATE"), "{error}");
    let some = open(&changed(&all, |options| options.credentials = user("some"))).await;
    some.create(LogSpec::topic("orders", 1)).await.unwrap();
    let error = some.append(&partition(0), event("1")).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (&ErrorKind::Denied, Applied::No), "{error}");
    assert!(error.to_string().contains("orders.0"), "{error}");
    let control = open(&all).await;
    control.append(&partition(0), event("1")).await.unwrap();
    let error = refused(&changed(&all, |options| options.replicas = Some(3))).await;
    assert!(*error.kind() == ErrorKind::Misconfigured, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_without_effect() {
    let Some(broker) = Broker::start("nats-2.9").await else { return };
    let options = options(broker.url());
    let log = open(&options).await;
    log.create(LogSpec::topic("orders", 1)).await.unwrap();
    log.create(LogSpec::from(slot())).await.unwrap();
    let limit = log.capability().record_bytes_max;
    let sized = |bytes: usize| {
        let limits = Limits { event_bytes: usize::MAX, ..Limits::default() };
        let event = Event::builder("1", "/tests", "t").data(Data::Binary(Bytes::from(vec![7; bytes])));
        Record::Event(event.build_within(&limits).unwrap())
    };
    log.append(&partition(0), sized(limit)).await.unwrap();
    log.append(&slot(), Record::Frame(vec![7; limit].into())).await.unwrap();
    let error = log.append(&partition(0), sized(limit + 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (&ErrorKind::TooLarge { limit_bytes: limit }, Applied::No));
    let error = log.append(&slot(), Record::Frame(vec![7; limit + 1].into())).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (&ErrorKind::TooLarge { limit_bytes: limit }, Applied::No));
    for id in [partition(0), slot()] {
        let records = super::read(log.as_ref(), &id, tidegate_backbone::Position::ZERO).await;
        assert_eq!(records.len(), 1, "{id}");
    }

    // What waits for an acknowledgement is bounded.
    let bounded = open(&changed(&options, |options| options.queue_records = 4)).await;
    let appends: Vec<_> = (0..64).map(|n| bounded.append(&partition(0), event(n.to_string()))).collect();
    let mut refusals = 0;
    for append in appends {
        match append.await {
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Backpressure { .. }), "{error}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 0, "64 at once and room for 4");
    bounded.append(&partition(0), event("later")).await.unwrap();
}
