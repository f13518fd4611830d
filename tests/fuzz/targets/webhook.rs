//! Web hooks: what was signed is believed and nothing else is; whatever a sink answers in `Retry-After` and in the headers
//! of the handshake has a bounded meaning.
#![no_main]

use std::num::NonZeroU32;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::message;
use tidegate_routing::handshake::{Allowed, Handshake, Rate, judge, parse_rate};
use tidegate_routing::{Answer, Verdict};
use tidegate_schemas::limits::RETRY_AFTER_MAX;
use tidegate_schemas::webhook::{ID, SIGNATURE, Signer, SigningKey, TIMESTAMP, Verifier, VerifyingKey};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PRIVATE: &str = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NOW: u64 = 1_792_567_600;

fn key(text: &str) -> SigningKey {
    SigningKey::parse(text).expect("the key is good")
}

fuzz_target!(|input: &[u8]| {
    let (headers, body) = message(input);
    let public = key(PRIVATE).public_key().expect("a private key has a public half");
    let keys = [SECRET, &public].map(|text| VerifyingKey::parse(text).expect("the key is good"));
    let verifier = Verifier::new(keys.into());

    // Nobody who does not have a key is believed, whatever the headers say.
    assert!(verifier.verify(&headers, &body, NOW).is_err(), "a forged message was believed");

    // Every key alone is enough for what it signed, and a byte more is another message.
    let id = headers.get(ID).and_then(|value| value.to_str().ok()).unwrap_or("e677cf5d").replace('.', "");
    if let Ok(value) = http::HeaderValue::from_str(&id) {
        for text in [SECRET, PRIVATE] {
            let mut signed = headers.clone();
            Signer::new(vec![key(text)]).append_headers(&mut signed, value.clone(), NOW, &body);
            assert_eq!(verifier.verify(&signed, &body, NOW), Ok(()), "what was signed is not believed");
            let longer = [&body[..], b"x"].concat();
            assert!(verifier.verify(&signed, &longer, NOW).is_err(), "another body was believed");
            signed.insert(TIMESTAMP, http::HeaderValue::from(NOW + 1));
            assert!(verifier.verify(&signed, &body, NOW).is_err(), "another time was believed");
            assert!(!signed[SIGNATURE].is_empty());
        }
    }

    // Keys are read without a panic and without showing what was read.
    if let Ok(text) = std::str::from_utf8(&body) {
        let _ = SigningKey::parse(text).map(|key| assert!(key.scheme().as_str().starts_with("v1")));
        let _ = VerifyingKey::parse(text);
    }

    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    for status in [200, 301, 404, 429, 503] {
        let verdict = Verdict::of(Answer::Status { status, retry_after: text("retry-after") }, NOW * 1_000);
        if let Verdict::Retry(hint) | Verdict::RetryThenPause(hint) = verdict {
            assert!(hint.retry_after.is_none_or(|after| after <= RETRY_AFTER_MAX), "{hint:?}");
        }
    }
    let allowed = Allowed { origin: text("webhook-allowed-origin"), rate: text("webhook-allowed-rate") };
    match judge("events.example.com", NonZeroU32::new(60), allowed) {
        Ok(rate) => {
            assert!(allowed.origin.is_some(), "consent without a word");
            let (mut handshake, now) = (Handshake::default(), Duration::from_secs(1));
            handshake.granted(rate, now);
            handshake.sent(now);
            assert!(handshake.wait(now) <= Duration::from_secs(60));
            assert_eq!(handshake.wait(now).is_zero(), rate == Rate::Unlimited);
            assert_eq!(parse_rate(&rate.to_string()), Some(rate));
        }
        Err(refusal) => assert!(refusal.to_string().len() < 1_000, "a refusal quotes too much"),
    }
});
