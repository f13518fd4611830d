use super::super::Gateway;
use super::*;
use crate::{Diagnostic, check};

fn variables(name: &str) -> Option<String> {
    match name {
        "PASSWORD" => Some("hush".to_owned()),
        "HOSTS" => Some("h:x".to_owned()),
        _ => None,
    }
}

/// A configuration with these lines below `spec.backbone`, read from a folder with the files `ca.pem` and `key.pem`.
fn backbone(lines: &str) -> Result<Backbone, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    for file in ["ca.pem", "key.pem", "user.creds"] {
        std::fs::write(folder.path().join(file), "x").unwrap();
    }
    let path = folder.path().join("g.yaml");
    let folder = folder.path().display().to_string();
    let lines = lines.replace("DIR", &folder);
    std::fs::write(&path, format!("apiVersion: tidegate.dev/v1\nkind: Gateway\nspec:\n  backbone:{lines}\n")).unwrap();
    let shown =
        |faults: Vec<Diagnostic>| faults.iter().map(|fault| fault.to_string().replace(&folder, "DIR")).collect();
    let read: Result<Gateway, _> = super::super::load(&path, &variables);
    assert_eq!(check(&[path], &variables).is_ok(), read.is_ok(), "check says the same");
    read.map(|gateway| gateway.backbone.unwrap()).map_err(shown)
}

#[test]
fn every_key_is_read() {
    let read = backbone(
        "
    url: tls+nats://a,b:5222
    credentials: {user: u, password: {secretKeyRef: {name: PASSWORD}}}
    tls: {ca: DIR/ca.pem, certificate: DIR/ca.pem, key: DIR/key.pem}
    namespace: mesh_1
    topicPrefix: mesh.
    slots: 8
    replicas: 5",
    )
    .unwrap();
    assert_eq!(read.to_string(), "tls+nats://a:4222,b:5222");
    let Some(Credentials::Password { user, password, .. }) = &read.credentials else { panic!("{read:?}") };
    assert_eq!((user.as_str(), password.expose()), ("u", "hush"));
    assert!(read.tls.ca.is_some() && read.tls.identity.is_some());
    assert_eq!((read.namespace.as_str(), read.topic_prefix.as_str()), ("mesh_1", "mesh."));
    assert_eq!((read.slots, read.replicas), (Some(8), Some(5)));
    assert!(!format!("{read:?}").contains("hush"), "{read:?}");

    let plain = backbone(" nats://h").unwrap();
    assert_eq!(plain, Backbone::of_argument("nats://h:4222").unwrap());
    assert_eq!((plain.namespace.as_str(), plain.slots), ("tidegate", None));
    let token = backbone(" {url: 'nats://h', credentials: {token: '${env:PASSWORD}'}}").unwrap();
    assert!(matches!(token.credentials, Some(Credentials::Token(_))));
    let nkey = backbone(" {url: 'nats://h', credentials: {nkey: {secretKeyRef: {name: PASSWORD}}}}").unwrap();
    assert!(matches!(&nkey.credentials, Some(Credentials::Nkey(seed)) if seed.expose() == "hush"));
    let file = backbone(" {url: 'nats://h', credentials: {file: DIR/user.creds}}").unwrap();
    assert!(matches!(file.credentials, Some(Credentials::File(_))));
    let scram = backbone(
        " {url: 'kafka+ssl://h', credentials: {user: u, password: '${env:PASSWORD}', mechanism: scram-sha-256}}",
    );
    let Some(Credentials::Password { mechanism, .. }) = scram.unwrap().credentials else { panic!("no password") };
    assert_eq!(mechanism.sasl(), "SCRAM-SHA-256");
}

#[test]
fn every_fault_is_told_at_once() {
    let faults = backbone(
        "
    url: nats://h:0
    credentials: {user: u, password: hush, token: '${env:PASSWORD}'}
    tls: {certificate: /nowhere/client.pem}
    namespace: a b
    topicPrefix: '.a'
    slots: 0
    replica: 3",
    )
    .unwrap_err();
    assert_eq!(
        faults,
        [
            "DIR/g.yaml:11:5: `spec.backbone.replica` is not known (did you mean `replicas`?)",
            "DIR/g.yaml:5:10: `spec.backbone.url`: `nats://h:0` has the port `0` for h, which is no number from 1 to 65535 (write servers only, as in `nats://127.0.0.1:4222`)",
            "DIR/g.yaml:6:5: `spec.backbone.credentials` has password and token beside each other (keep one of them)",
            "DIR/g.yaml:7:24: `spec.backbone.tls.certificate`: `/nowhere/client.pem` is no file that is there (name one that the gateway may read)",
            "DIR/g.yaml:7:5: `spec.backbone.tls` has a `certificate` without its `key` (add `key: FILE`, or remove `certificate`)",
            "DIR/g.yaml:8:16: `spec.backbone.namespace`: `a b` is no namespace (write 1 to 32 letters, digits, `-` or `_`)",
            "DIR/g.yaml:9:18: `spec.backbone.topicPrefix`: `.a` is no prefix of a topic (write at most 60 letters, digits, `-`, `_` or `.`, for example `mesh.`)",
            "DIR/g.yaml:10:12: `spec.backbone.slots` is 0 and out of range (write a whole number from 1 to 256)",
        ]
    );
    let one = |lines: &str| {
        let faults = backbone(lines).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:#?}");
        faults.into_iter().next().unwrap().split_once(": ").unwrap().1.to_owned()
    };
    for (lines, fault) in [
        (
            " {url: 'embedded:./d', slots: 3}",
            "`spec.backbone.slots` is about brokers, and the backbone is the embedded log (remove `slots`, or name a broker with `url`)",
        ),
        (
            " {url: 'nats://h', tls: {ca: DIR/ca.pem}}",
            "`spec.backbone.tls` is about TLS, and the backbone is not reached over it (write `tls+nats://` in the URL, or remove the key)",
        ),
        (
            " {url: 'kafka://h', credentials: {token: '${env:PASSWORD}'}}",
            "`spec.backbone.credentials.token` is of nats, and the backbone is another (remove it, and write `user` and `password`)",
        ),
        (
            " {url: 'kafka://h', credentials: {nkey: '${env:PASSWORD}'}}",
            "`spec.backbone.credentials.nkey` is of nats, and the backbone is another (remove it, and write `user` and `password`)",
        ),
        (
            " {url: 'nats://h', credentials: {nkey: '${env:PASSWORD}', file: DIR/user.creds}}",
            "`spec.backbone.credentials` has nkey and file beside each other (keep one of them)",
        ),
        (
            " {url: 'nats://u:${env:PASSWORD}@h', credentials: {token: '${env:PASSWORD}'}}",
            "`spec.backbone.credentials` says what the URL says already (remove the credentials from the URL)",
        ),
        (" {slots: 3}", "`spec.backbone.url` is missing (add `url: nats://127.0.0.1:4222`)"),
    ] {
        assert_eq!(one(lines), fault);
    }
}

#[test]
fn secrets_in_urls_are_only_named() {
    for named in [" nats://u:${env:PASSWORD}@h", " nats://${env:PASSWORD}@h"] {
        let read = backbone(named).unwrap();
        assert!(read.credentials.is_some() && !read.to_string().contains('@'), "{read:?}");
        assert!(!format!("{read:?}").contains("hush"), "{read:?}");
    }
    for written in [" nats://u:hush@h", " nats://hush@h", " nats://${env:PASSWORD}:hush@h"] {
        let faults = backbone(written).unwrap_err();
        assert!(faults[0].contains("holds a secret itself") && !faults[0].contains("hush"), "{faults:?}");
    }
    let faults = backbone(" nats://u:hush@${env:HOSTS}").unwrap_err();
    assert!(!faults[0].contains("hush"), "{faults:?}");
    assert!(Backbone::of_argument("nats://u:hush@h").unwrap_err().contains("TIDEGATE_BACKBONE"));
    assert!(Backbone::of_variable("nats://u:hush@h").unwrap().credentials.is_some());
    assert!(Backbone::of_variable("kafka://u@h").is_err());
}

#[test]
fn another_url_keeps_what_fits() {
    let file = Backbone { slots: Some(4), ..Backbone::of_variable("nats://u:hush@a").unwrap() };
    let moved = file.clone().moved_to(Backbone::of_argument("nats://b").unwrap());
    assert_eq!(
        (moved.to_string().as_str(), moved.slots, moved.credentials.is_some()),
        ("nats://b:4222", Some(4), true)
    );
    for other in ["kafka://b", "embedded:./d"] {
        let other = Backbone::of_argument(other).unwrap();
        assert_eq!(file.clone().moved_to(other.clone()), other);
    }
}
