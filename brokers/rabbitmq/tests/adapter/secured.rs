//! Users and TLS.

use tidegate_backbone::ErrorKind;
use tidegate_rabbitmq::Tls;

use crate::*;

/// The options of a user of the broker behind TLS.
fn of(server: &Broker, user: &str, password: &str) -> Options {
    let mut options = options(server.url(), "secured");
    (options.user, options.password) = (user.to_owned(), password.to_owned());
    let ca = server.folder().expect("the broker is ours").join("tls/ca.pem");
    options.tls = Some(Tls { ca: Some(ca), identity: None });
    options
}

async fn refused(options: Options) -> (ErrorKind, String) {
    let opened = tokio::time::timeout(HANG, RabbitBroker::open(options, &Environment::system())).await;
    let error = opened.expect("it is told before long").expect_err("it is refused");
    (error.kind().clone(), error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_authorities() {
    let Some(server) = Broker::start("rabbitmq-auth").await.filter(Broker::is_ours) else { return };
    let environment = Environment::system();
    let broker = RabbitBroker::open(of(&server, "tidegate", "tidegate-secret"), &environment).await.unwrap();
    let orders = topic(&broker, "orders").await;
    broker.append(&orders, Record::Event(event("1"))).await.unwrap();
    assert_eq!(read(&broker, &orders, Position::ZERO).await.len(), 1);

    let (kind, told) = refused(of(&server, "tidegate", "wrong-password")).await;
    assert_eq!(kind, ErrorKind::Denied, "{told}");
    assert!(told.contains("check both") && !told.contains("wrong-password"), "{told}");
    let (kind, told) = refused(of(&server, "guest", "guest-secret")).await;
    assert_eq!(kind, ErrorKind::Denied, "{told}");
    assert!(told.contains("Permissions"), "{told}");
    let mut nowhere = of(&server, "tidegate", "tidegate-secret");
    nowhere.vhost = "not-there".to_owned();
    let (kind, told) = refused(nowhere).await;
    assert!(matches!(kind, ErrorKind::Denied | ErrorKind::Misconfigured), "{told}");
    let mut stranger = of(&server, "tidegate", "tidegate-secret");
    let other = server.folder().unwrap().join("tls/other-ca.pem");
    stranger.tls = Some(Tls { ca: Some(other), identity: None });
    let (kind, told) = refused(stranger).await;
    assert_eq!(kind, ErrorKind::Misconfigured, "{told}");
    assert!(told.contains("tls.ca"), "{told}");
    let mut plain = of(&server, "tidegate", "tidegate-secret");
    plain.tls = None;
    let (kind, told) = refused(plain).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{told}");

    // A user that is refused from now on, and taken again.
    server.admit(false).await;
    let deadline = tokio::time::Instant::now() + HANG;
    while broker.unreachable().is_none_or(|told| !told.contains("check both")) {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", broker.unreachable());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.admit(true).await;
    let deadline = tokio::time::Instant::now() + HANG;
    while broker.append(&orders, Record::Event(event("2"))).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", broker.unreachable());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    broker.close().await;
}
