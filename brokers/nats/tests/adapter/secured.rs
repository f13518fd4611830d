//! Encryption and credentials of every kind that the options know, on real servers; and what is told where one of them is
//! wrong. Each refusal differs in one thing from what opens and works.

use std::net::Ipv4Addr;
use std::path::Path;

use tidegate_backbone::{Error, ErrorKind, LogSpec, PartitionLog as _};
use tidegate_conformance::{Broker, Proxy};
use tidegate_nats::{Credentials, Options};

use super::jwt::{Kind, Pair};
use super::refusals::{changed, configured, refused};
use super::{event, open, options, partition};

/// In every secret of a test, so that one that is shown is found.
const SECRET: &str = "s3cr3t";

fn user(user: &str, password: &str) -> Credentials {
    Credentials::User { user: user.to_owned(), password: password.to_owned() }
}

/// It opens with these options, and takes an event.
async fn works(options: &Options) {
    let log = open(options).await;
    log.create(LogSpec::topic("orders", 1)).await.unwrap();
    log.append(&partition(0), event("1")).await.unwrap();
}

/// The refusal is of that kind, says that, and shows nothing secret.
async fn tells(options: &Options, kind: ErrorKind, words: &[&str]) {
    let mut error = refused(options).await;
    // A server that ends a connection may reset it before its reason is read; the gateway comes again, and so does this.
    for _ in 0..20 {
        if *error.kind() != ErrorKind::Unavailable || kind == ErrorKind::Unavailable {
            break;
        }
        error = refused(options).await;
    }
    shows(&error, options, kind, words);
}

fn shows(error: &Error, options: &Options, kind: ErrorKind, words: &[&str]) {
    assert_eq!(*error.kind(), kind, "{words:?}: {error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
    assert!(!format!("{error} {error:?} {options:?}").contains(SECRET), "{error:?}");
}

/// What a user is told who is known and permitted nothing. Which of what it asks for comes first is the server's affair.
const PERMISSION: [&str; 2] = ["NATS says: Permissions Violation for", "give the user that permission"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_over_tls() {
    let Some(broker) = Broker::start("nats-auth").await.filter(Broker::is_ours) else { return };
    let tls = broker.folder().unwrap().join("tls");
    let mut right = options(broker.url());
    right.tls.required = true;
    right.tls.ca_file = Some(tls.join("ca.pem"));
    right.credentials = user("tidegate", "tidegate-secret");
    works(&right).await;
    // The server asks for TLS by itself, where the address does not.
    let unsaid = options(&broker.url().replace("tls://", "nats://"));
    works(&changed(&unsaid, |options| {
        options.tls.ca_file.clone_from(&right.tls.ca_file);
        options.credentials = right.credentials.clone();
    }))
    .await;

    let with = |credentials: Credentials| changed(&right, |options| options.credentials = credentials);
    tells(&with(user("tidegate", "s3cr3t-guess")), ErrorKind::Denied, &["user tidegate", "check user, password"]).await;
    tells(&with(user("nobody", "s3cr3t-guess")), ErrorKind::Denied, &["user nobody"]).await;
    tells(&with(Credentials::Token("s3cr3t-guess".to_owned())), ErrorKind::Denied, &["a token"]).await;
    tells(&with(Credentials::None), ErrorKind::Denied, &["wants credentials", "set a user"]).await;
    tells(&with(user("guest", "guest-secret")), ErrorKind::Denied, &PERMISSION).await;

    let trusting = |ca: Option<&str>| changed(&right, |options| options.tls.ca_file = ca.map(|name| tls.join(name)));
    let authority = ["signed by no authority that is trusted", "set tls.ca"];
    tells(&trusting(None), ErrorKind::Misconfigured, &authority).await;
    tells(&trusting(Some("other-ca.pem")), ErrorKind::Misconfigured, &authority).await;
    // The same server by an address that its certificate does not name.
    let proxy = Proxy::start_at(Ipv4Addr::new(127, 0, 0, 2)).await;
    proxy.forward_to(broker.addresses()[0].parse().unwrap());
    let elsewhere = changed(&options(&format!("tls://{}", proxy.address())), |options| {
        options.credentials = right.credentials.clone();
        options.tls = right.tls.clone();
    });
    tells(&elsewhere, ErrorKind::Misconfigured, &["127.0.0.2", "localhost", "by a host of its certificate"]).await;
    let missing = with(Credentials::File("/does/not/exist.creds".into()));
    tells(&missing, ErrorKind::Misconfigured, &["/does/not/exist.creds"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_clients() {
    let Some(broker) = Broker::start("nats-certs").await.filter(Broker::is_ours) else { return };
    let tls = broker.folder().unwrap().join("tls");
    let shown = |certificate: Option<&str>, key: Option<&str>| {
        changed(&options(broker.url()), |options| {
            options.tls.ca_file = Some(tls.join("ca.pem"));
            options.tls.certificate_file = certificate.map(|name| tls.join(name));
            options.tls.key_file = key.map(|name| tls.join(name));
        })
    };
    works(&shown(Some("tidegate.pem"), Some("tidegate.key"))).await;

    let none = ["wants a certificate of its clients", "set tls.certificate and tls.key"];
    tells(&shown(None, None), ErrorKind::Misconfigured, &none).await;
    let stranger = shown(Some("stranger.pem"), Some("stranger.key"));
    tells(
        &stranger,
        ErrorKind::Misconfigured,
        &["refuses the client's certificate", "authority that the server trusts"],
    )
    .await;
    tells(&shown(Some("guest.pem"), Some("guest.key")), ErrorKind::Denied, &PERMISSION).await;
    let mixed = shown(Some("tidegate.pem"), Some("guest.key"));
    tells(&mixed, ErrorKind::Misconfigured, &["tls.certificate and tls.key", "belong"]).await;
    tells(&shown(Some("tidegate.pem"), None), ErrorKind::Misconfigured, &["set together"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_keys_and_files_of_credentials() {
    let Some(broker) = Broker::start("nats").await.filter(Broker::is_ours) else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = |name: &str| format!("jetstream {{ store_dir: \"{}\" }}", folder.path().join(name).display());

    let token = format!("authorization {{ token: \"s3cr3t\" }}\n{}", store("token"));
    let (_token, url) = configured(&broker, folder.path(), &token).await.expect("the script tells the process");
    works(&options(&url.replace("nats://", "nats://s3cr3t@"))).await;
    tells(&options(&url.replace("nats://", "nats://s3cr3t-guess@")), ErrorKind::Denied, &["a token"]).await;

    let (right, wrong) = (Pair::new(Kind::User, 1), Pair::new(Kind::User, 2));
    let key = format!("authorization {{ users: [ {{ nkey: {} }} ] }}\n{}", right.public(), store("key"));
    let (_key, url) = configured(&broker, folder.path(), &key).await.unwrap();
    let with = |seed: String| changed(&options(&url), |options| options.credentials = Credentials::NkeySeed(seed));
    works(&with(right.seed())).await;
    for seed in [wrong.seed(), "SUANONE".to_owned()] {
        let error = refused(&with(seed.clone())).await;
        shows(&error, &with(seed.clone()), ErrorKind::Denied, &["an nkey"]);
        assert!(!format!("{error:?}").contains(&seed), "{error:?}");
    }

    // Accounts by an operator, as services of NATS have them: a user shows a file with a token that its account signed.
    let (operator, account, system) =
        (Pair::new(Kind::Operator, 3), Pair::new(Kind::Account, 4), Pair::new(Kind::Account, 5));
    let configuration = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{ {}: {}, {}: {} }}\n{}",
        operator.signs(&operator, "operator"),
        system.public(),
        account.public(),
        operator.signs(&account, "account"),
        system.public(),
        operator.signs(&system, "system"),
        store("operator"),
    );
    let (_operator, url) = configured(&broker, folder.path(), &configuration).await.unwrap();
    let by_file =
        |path: &Path| changed(&options(&url), |options| options.credentials = Credentials::File(path.to_owned()));
    let write = |name: &str, by: &Pair| {
        let path = folder.path().join(name);
        std::fs::write(&path, by.credentials(&right)).unwrap();
        path
    };
    works(&by_file(&write("right.creds", &account))).await;
    // Signed by an account that the operator did not make.
    let forged = write("forged.creds", &Pair::new(Kind::Account, 6));
    tells(&by_file(&forged), ErrorKind::Denied, &["forged.creds"]).await;
    let empty = folder.path().join("empty.creds");
    std::fs::write(&empty, "").unwrap();
    tells(&by_file(&empty), ErrorKind::Misconfigured, &["empty.creds"]).await;
}
