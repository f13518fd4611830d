//! Encryption and credentials of every kind that the options know, on a real broker; and what is told where one of them is
//! wrong. Each refusal differs in one thing from what opens and works.

mod common;

use std::net::Ipv4Addr;
use std::path::Path;

use common::*;
use tidegate_backbone::{Environment, ErrorKind, PartitionLog as _, Position, Record};
use tidegate_conformance::{Broker, Proxy};
use tidegate_kafka::{KafkaBroker, Options, Sasl, Tls};

/// In every secret of a test, so that one that is shown is found.
const SECRET: &str = "s3cr3t";

fn sasl(mechanism: &str, user: &str, password: &str) -> Option<Sasl> {
    Some(Sasl { mechanism: mechanism.to_owned(), user: user.to_owned(), password: password.to_owned() })
}

/// It opens with these options, and events come back.
async fn works(options: &Options) {
    let environment = Environment::system();
    let broker = KafkaBroker::open(options.clone(), &environment).await.unwrap_or_else(|error| panic!("{error}"));
    let log = topic(&broker, "orders").await;
    broker.append(&log, Record::Event(event("1"))).await.unwrap();
    assert!(!read(&broker, &log, Position::ZERO).await.is_empty());
    broker.close().await;
}

/// It is refused with an error of that kind, which says that and shows nothing secret.
async fn tells(options: &Options, kind: ErrorKind, words: &[&str]) {
    let error = KafkaBroker::open(options.clone(), &Environment::system()).await.expect_err("it is refused");
    assert_eq!(*error.kind(), kind, "{words:?}: {error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
    assert!(!format!("{error} {error:?} {options:?}").contains(SECRET), "{error:?}");
}

fn with(url: &str, tls: &Path, ca: &str, certificate: Option<&str>) -> Options {
    let identity = certificate.map(|name| (tls.join(format!("{name}.pem")), tls.join(format!("{name}.key"))));
    Options { tls: Some(Tls { ca: Some(tls.join(ca)), identity }), ..options(url, "secured") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_and_certificates_over_tls() {
    let Some(broker) = Broker::start("kafka-auth").await.filter(Broker::is_ours) else { return };
    let folder = broker.folder().unwrap();
    let tls = folder.join("tls");
    let by_password = |ca: &str, sasl: Option<Sasl>| Options { sasl, ..with(broker.url(), &tls, ca, None) };
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        works(&by_password("ca.pem", sasl(mechanism, "tidegate", "tidegate-secret"))).await;
        let wrong = by_password("ca.pem", sasl(mechanism, "tidegate", "s3cr3t-guess"));
        tells(&wrong, ErrorKind::Denied, &["refuses the credentials", "check the user and its password"]).await;
    }
    let nobody = by_password("ca.pem", sasl("SCRAM-SHA-512", "nobody", "s3cr3t-guess"));
    tells(&nobody, ErrorKind::Denied, &["refuses the credentials"]).await;
    // Known, and permitted nothing.
    let permission = ["secured.lanes", "lacks a permission", "Permissions"];
    tells(&by_password("ca.pem", sasl("PLAIN", "guest", "guest-secret")), ErrorKind::Denied, &permission).await;

    let right = || sasl("SCRAM-SHA-512", "tidegate", "tidegate-secret");
    let authority = ["signed by no authority that is trusted", "set tls.ca", "a host that its certificate names"];
    tells(&by_password("other-ca.pem", right()), ErrorKind::Misconfigured, &authority).await;
    // The same broker by an address that its certificate does not name.
    let proxy = Proxy::start_at(Ipv4Addr::new(127, 0, 0, 2)).await;
    proxy.forward_to(broker.addresses()[0].parse().unwrap());
    let elsewhere = format!("kafka://{}", proxy.address());
    let elsewhere = Options { sasl: right(), ..with(&elsewhere, &tls, "ca.pem", None) };
    tells(&elsewhere, ErrorKind::Misconfigured, &authority).await;
    // What the broker cannot tell from one that is not up: it ends the connection without a word.
    let plain = Options { sasl: right(), ..options(broker.url(), "secured") };
    let nameless = by_password("ca.pem", None);
    tokio::join!(
        tells(&plain, ErrorKind::Unavailable, &["whether its port wants TLS"]),
        tells(&nameless, ErrorKind::Unavailable, &["whether its port wants credentials"])
    );

    let port = std::fs::read_to_string(folder.join("1/port-certs")).unwrap();
    let url = format!("kafka://127.0.0.1:{}", port.trim());
    works(&with(&url, &tls, "ca.pem", Some("tidegate"))).await;
    let wanted = ["wants a certificate of its clients", "set tls.certificate and tls.key"];
    for certificate in [None, Some("stranger")] {
        tells(&with(&url, &tls, "ca.pem", certificate), ErrorKind::Misconfigured, &wanted).await;
    }
    tells(&with(&url, &tls, "ca.pem", Some("guest")), ErrorKind::Denied, &permission).await;
    let mut mixed = with(&url, &tls, "ca.pem", Some("tidegate"));
    mixed.tls.as_mut().unwrap().identity = Some((tls.join("tidegate.pem"), tls.join("guest.key")));
    tells(&mixed, ErrorKind::Misconfigured, &["mismatch"]).await;
}
