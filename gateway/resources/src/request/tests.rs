//! What a subscription says about its requests.

use super::*;
use crate::{Resources, parse};

const KEY: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn variables(name: &str) -> Option<String> {
    let value = match name {
        "KEY" => KEY,
        "OLD" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "PRIVATE" => "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "SHORT" => "whsec_aHVzaA==",
        "PLAIN" => "hush-hush",
        "PUBLIC" => "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        "LINES" => "hush\nhush",
        _ => return None,
    };
    Some(value.to_owned())
}

fn read(sink: &str, lines: &str) -> Result<Resources, Vec<String>> {
    let text = format!(
        "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {{name: s}}\nspec:\n  topics: [t]\n  sink: {sink}\n{lines}\n"
    );
    parse("f.yaml", &text, &variables).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

fn good(lines: &str) -> Request {
    let resources = read("https://h/", lines).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let request = resources.subscriptions[0].request.clone();
    let shown = format!("{resources:?}");
    for secret in ["hush", "AAECAw", "MfKQ9r"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    request
}

/// Checks the faults of lines that begin in line 7 of their file.
#[track_caller]
fn check(sink: &str, lines: &str, expected: &[&str]) {
    let faults = read(sink, lines).expect_err("the file is faulty");
    assert_eq!(faults, expected, "\n{lines}");
    for secret in ["hush", "aHVza", "whpk_11"] {
        assert!(!faults.iter().any(|fault| fault.contains(secret)), "a secret is shown: {faults:#?}");
    }
}

#[test]
fn without_a_word_requests_are_plain_and_binary() {
    assert_eq!(good(""), Request::default());
    assert_eq!(good("  delivery: {mode: structured}").mode, Mode::Structured);
    assert_eq!(good("  delivery: {mode: binary}").mode, Mode::Binary);
}

#[test]
fn a_request_has_keys_headers_and_a_question() {
    let request = good(
        "  signing: {secrets: ['${env:KEY}', {secretKeyRef: {name: OLD}}, {secretKeyRef: {name: PRIVATE, key: PRIVATE}}]}
  headers: {Authorization: 'Bearer ${env:PLAIN}', X-Tenant: north, x-api-key: {secretKeyRef: {name: PLAIN}}}
  handshake: {origin: events.example.com, rate: 600}",
    );
    assert_eq!(request.mode, Mode::Structured, "a signature covers the body only");
    let exposed: Vec<_> = request.signing.iter().map(|secret| secret.expose().split_at(6).0.to_owned()).collect();
    assert_eq!(exposed, ["whsec_", "whsec_", "whsk_A"]);
    assert_eq!(request.signing[1].named(), "secretKeyRef OLD");
    let headers: Vec<_> = request.headers.iter().map(|header| (header.name.as_str(), header.value.expose())).collect();
    assert_eq!(headers, [("authorization", "Bearer hush-hush"), ("x-tenant", "north"), ("x-api-key", "hush-hush")]);
    let handshake = Handshake { origin: "events.example.com".to_owned(), rate: NonZeroU32::new(600) };
    assert_eq!(request.handshake, Some(handshake));
}

#[test]
fn keys_that_are_weak_or_written_out_are_refused_and_not_shown() {
    check(
        "http://h/",
        "  signing:
    secrets:
      - whsec_hush
      - ${env:SHORT}
      - ${env:PLAIN}
      - ${env:PUBLIC}
      - {secretKeyRef: {name: MISSING}}
      - {secretKeyRef: {name: KEY, key: part}}
      - ${env:KEY}
      - {secretKeyRef: {name: KEY}}",
        &[
            "f.yaml:9:7: `spec.signing.secrets` has 8 keys, and 4 are allowed (remove those that no receiver needs any more)",
        ],
    );
    check(
        "http://h/",
        "  signing:
    secrets:
      - whsec_hush
      - ${env:SHORT}
      - ${env:PLAIN}
      - ${env:PUBLIC}",
        &[
            "f.yaml:9:9: `spec.signing.secrets[0]` holds a secret itself, and files only name them (write `${env:NAME}` or `{secretKeyRef: {name: NAME}}`, and set NAME in the environment of the gateway)",
            "f.yaml:10:9: `spec.signing.secrets[1]`: the secret that `${env:SHORT}` stands for has 4 bytes and needs 24 to 64 (make a new one, for example by `echo whsec_$(openssl rand -base64 32)`)",
            "f.yaml:11:9: `spec.signing.secrets[2]`: the secret that `${env:PLAIN}` stands for begins neither with whsec_ nor with whsk_ (write whsec_ and the base64 of 32 random bytes, for example by `echo whsec_$(openssl rand -base64 32)`)",
            "f.yaml:12:9: `spec.signing.secrets[3]`: the secret that `${env:PUBLIC}` stands for is a public key, which cannot sign (use the private one, which begins with whsk_)",
        ],
    );
    check(
        "http://h/",
        "  signing:
    secrets:
      - {secretKeyRef: {name: MISSING}}
      - {secretKeyRef: {name: KEY, key: part}}
      - ${env:KEY}
      - {secretKeyRef: {name: KEY}}",
        &[
            "f.yaml:9:31: `spec.signing.secrets[0].secretKeyRef` needs the variable `MISSING`, which is not set (set `MISSING` in the environment of the gateway)",
            "f.yaml:10:41: `spec.signing.secrets[1].secretKeyRef.key` names a part of a secret, and the environment holds secrets whole (remove it, or name the variable itself with `name`)",
            "f.yaml:12:9: `spec.signing.secrets[3]` is the same key as one before it (remove one)",
        ],
    );
    check(
        "http://h/",
        "  signing: {}
  delivery: {mode: binary}",
        &[
            "f.yaml:7:3: `spec.signing.secrets` is missing (add `secrets: [\"${env:WEBHOOK_SECRET}\"]`)",
            "f.yaml:8:20: `spec.delivery.mode: binary` cannot be signed: a signature covers the body only (write `structured`, or remove the key)",
        ],
    );
}

#[test]
fn headers_of_the_gateway_and_credentials_that_are_written_out_are_refused() {
    check(
        "http://h/",
        "  headers:
    Authorization: Bearer hush
    Content-Type: text/plain
    CE-Id: '1'
    Webhook-Signature: v1,hush
    x y: z
    X-Lines: ${env:LINES}
    X-Twice: a
    x-twice: b
    x-api-key: hush
    X-Fine: yes it is",
        &[
            "f.yaml:8:20: `spec.headers.Authorization` holds a secret itself, and files only name them (write `${env:NAME}` or `{secretKeyRef: {name: NAME}}`, and set NAME in the environment of the gateway)",
            "f.yaml:9:5: `spec.headers.Content-Type` is set by the gateway (remove it)",
            "f.yaml:10:5: `spec.headers.CE-Id` is set by the gateway (remove it)",
            "f.yaml:11:5: `spec.headers.Webhook-Signature` is set by the gateway (remove it)",
            "f.yaml:12:5: `spec.headers.x y` is no name of a header (write letters, digits and `-`)",
            "f.yaml:13:14: `spec.headers.X-Lines` has a value that no header can have (use printable ASCII without a line break)",
            "f.yaml:15:5: `spec.headers.x-twice` is written twice (remove one)",
            "f.yaml:16:16: `spec.headers.x-api-key` holds a secret itself, and files only name them (write `${env:NAME}` or `{secretKeyRef: {name: NAME}}`, and set NAME in the environment of the gateway)",
        ],
    );
}

#[test]
fn a_question_names_its_sender_and_topics_are_not_asked() {
    check(
        "http://h/",
        "  handshake: {origin: 'http://h', rate: 0}",
        &[
            "f.yaml:7:23: `spec.handshake.origin`: `http://h` is no name of the DNS (write the one that stands for your gateways, for example `events.example.com`)",
            "f.yaml:7:41: `spec.handshake.rate` is 0 and out of range (write a whole number from 1 to 1000000)",
        ],
    );
    check(
        "topic://other",
        "  handshake: {origin: h}\n  delivery: {mode: structured}",
        &[
            "f.yaml:7:3: `spec.handshake` is about requests, and the sink is a topic (remove it, or send the events to a sink of http or https)",
            "f.yaml:8:14: `spec.delivery.mode` is about requests, and the sink is a topic (remove it, or send the events to a sink of http or https)",
        ],
    );
    for bad in ["", "-a.example", "a..b", "a_b", "a.example.", "ä.example"] {
        assert!(parse_origin(bad).is_err(), "{bad}");
    }
    for good in ["localhost", "eventemitter.example.com", "a-1.b", "EXAMPLE.com"] {
        assert!(parse_origin(good).is_ok(), "{good}");
    }
}

#[test]
fn authorities_are_read_from_beside_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let pem = format!(
        "# ours\n-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n",
        STANDARD.encode([7; 60])
    );
    std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
    std::fs::write(folder.path().join("empty.pem"), "nothing").unwrap();
    std::fs::write(folder.path().join("cut.pem"), "-----BEGIN CERTIFICATE-----\nAQID\n").unwrap();
    let load = |sink: &str, file: &str| {
        let text = format!(
            "{{apiVersion: tidegate.dev/v1, kind: Subscription, metadata: {{name: s}}, spec: {{topics: [t], sink: '{sink}', tls: {{ca: {file}}}}}}}"
        );
        std::fs::write(folder.path().join("s.yaml"), text).unwrap();
        crate::load(&[folder.path().to_owned()], &variables)
    };
    let trust = load("https://h/", "./ca.pem").unwrap().subscriptions[0].request.trust.clone().unwrap();
    assert_eq!(trust.file, "./ca.pem");
    assert_eq!(trust.certificates.iter().map(Vec::len).collect::<Vec<_>>(), [60, 3]);
    for (sink, file, words) in [
        ("https://h/", "missing.pem", "cannot be read"),
        ("https://h/", "empty.pem", "holds no certificate"),
        ("https://h/", "cut.pem", "holds a certificate that cannot be read"),
        ("https://h/", "/dev/zero", "is no file"),
        ("http://h/", "ca.pem", "is not called over https"),
    ] {
        let faults = load(sink, file).unwrap_err();
        assert_eq!(faults.len(), 1, "{file}");
        assert!(faults[0].to_string().contains(words), "{}", faults[0]);
    }
}
