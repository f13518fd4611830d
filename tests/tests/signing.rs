//! Signed deliveries from outside: believed by a verifier that is not the product's, and no secret anywhere to be found.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{hmac, signature};
use tidegate_tests::client::Outgoing;
use tidegate_tests::gateway::Options;
use tidegate_tests::home::Home;
use tidegate_tests::sink::{Delivery, Reply, Sink};
use tidegate_tests::subscriptions::wait_for_dead_letters;

const SECRET: &str = "whsec_c2VjcmV0LW9mLXRoZS10ZXN0LXRoYXQtaXMtbG9uZw==";
const OLD_SECRET: &str = "whsec_YW4tb2xkZXItc2VjcmV0LXRoYXQtZ29lcy1hd2F5IQ==";
const PRIVATE_KEY: &str = "whsk_cHJpdmF0ZS1rZXktb2YtdGhlLXRlc3QtMzItYnl0ZXM=";
const TOKEN: &str = "token-that-nobody-may-see";

fn header<'a>(delivery: &'a Delivery, name: &str) -> &'a str {
    delivery.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What Standard Webhooks signs.
fn signed_text(delivery: &Delivery) -> Vec<u8> {
    let head = format!("{}.{}.", header(delivery, "webhook-id"), header(delivery, "webhook-timestamp"));
    [head.as_bytes(), &delivery.body].concat()
}

fn bytes_of(key: &str) -> Vec<u8> {
    STANDARD.decode(key.split_once('_').expect("keys have a prefix").1).expect("keys are base64")
}

/// Every file below a folder that holds one of the texts.
fn files_with(folder: &Path, texts: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is ours").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, texts));
            continue;
        }
        let content = std::fs::read(&path).unwrap_or_default();
        if texts.iter().any(|text| content.windows(text.len()).any(|window| window == &text[..])) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_deliveries_verify_and_secrets_are_nowhere() {
    // A sink that gives back what it was sent, as frameworks do on their pages of errors.
    let sink = Sink::start(|delivery| {
        let echo = format!("no: {}", header(delivery, "authorization"));
        if delivery.id == "bad" { Reply::Body(422, "text/plain", echo) } else { Reply::Status(204) }
    })
    .await;
    let home = Home::new();
    home.write_resource(
        "s.yaml",
        &format!(
            "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {{name: signed}}\nspec:\n  topics: [t]\n  sink: {}\n\
             \x20 signing: {{secrets: [\"${{env:TEST_SECRET}}\", {{secretKeyRef: {{name: TEST_OLD_SECRET}}}}, \"${{env:TEST_PRIVATE_KEY}}\"]}}\n\
             \x20 headers: {{Authorization: \"Bearer ${{env:TEST_TOKEN}}\"}}\n  delivery: {{from: earliest}}\n",
            sink.url()
        ),
    );
    let variables = [
        ("TEST_SECRET", SECRET),
        ("TEST_OLD_SECRET", OLD_SECRET),
        ("TEST_PRIVATE_KEY", PRIVATE_KEY),
        ("TEST_TOKEN", TOKEN),
    ];
    let options =
        Options { variables: variables.map(|(name, value)| (name, value.to_owned())).into(), ..Options::default() };
    let gateway = home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"));
    for id in ["good", "bad"] {
        let event = Outgoing { id, data: r#"{"amount": "1.50 €"}"#, ..Outgoing::default() };
        gateway.client().publish("t", &event).await.expect("the gateway answers").expect(202);
    }
    let deliveries = sink.wait_for_ids(&["good".to_owned(), "bad".to_owned()]).await;
    for delivery in &deliveries {
        let signatures: Vec<_> =
            header(delivery, "webhook-signature").split(' ').filter_map(|one| one.split_once(',')).collect();
        let schemes: Vec<_> = signatures.iter().map(|(scheme, _)| *scheme).collect();
        assert_eq!(schemes, ["v1", "v1", "v1a"], "one for each key, in their order");
        let given: Vec<_> = signatures.iter().map(|(_, text)| STANDARD.decode(text).expect("base64")).collect();
        let text = signed_text(delivery);
        for (key, given) in [SECRET, OLD_SECRET].iter().zip(&given) {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes_of(key));
            hmac::verify(&key, &text, given).expect("the signature is right");
            // The control: a body that was changed on the way is not believed.
            hmac::verify(&key, &[&text[..], b" "].concat(), given).expect_err("another body was believed");
        }
        let pair = signature::Ed25519KeyPair::from_seed_unchecked(&bytes_of(PRIVATE_KEY)).expect("a seed of 32 bytes");
        let public = signature::KeyPair::public_key(&pair).as_ref();
        let public = signature::UnparsedPublicKey::new(&signature::ED25519, public);
        public.verify(&text, &given[2]).expect("the signature is right");
        public.verify(&text[1..], &given[2]).expect_err("another text was believed");
        assert!(header(delivery, "content-type").starts_with("application/cloudevents+json"), "signed is structured");
        assert_eq!(header(delivery, "authorization"), format!("Bearer {TOKEN}"));
    }

    let client = gateway.client();
    let letters = wait_for_dead_letters(client, "signed", 1).await;
    let mut shown = format!("{letters:?}");
    for path in ["/subscriptions", "/subscriptions/signed", "/topics", "/metrics", "/subscriptions/signed/dead-letters"]
    {
        let answer = client.get(path).await.expect("an answer").expect(200);
        shown.push_str(&String::from_utf8_lossy(&answer.body));
    }
    assert!(shown.contains("no: Bearer [redacted]") || shown.contains("no: [redacted]"), "{shown}");
    shown.push_str(&gateway.stderr());
    assert!(gateway.terminate().await.success());
    let mut secrets: Vec<Vec<u8>> = vec![TOKEN.as_bytes().to_vec()];
    for key in [SECRET, OLD_SECRET, PRIVATE_KEY] {
        secrets.push(key.split_once('_').expect("keys have a prefix").1.as_bytes().to_vec());
        secrets.push(bytes_of(key));
    }
    for secret in &secrets {
        let text = String::from_utf8_lossy(secret);
        assert!(!shown.contains(&*text), "{text} is shown:\n{shown}");
    }
    assert_eq!(files_with(home.path(), &secrets), [] as [String; 0]);
    // The control: the search finds what is there.
    std::fs::write(home.data().join("control"), TOKEN).expect("the folder is ours");
    assert_eq!(files_with(home.path(), &secrets).len(), 1);
}
