//! Signatures of Standard Webhooks: vectors of its libraries and cases around them.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tidegate_schemas::webhook::{SIGNATURE, Signer, SigningKey, Verifier, VerifyingKey};

use crate::tally::{Tally, json_file, testdata};

#[test]
fn vectors() {
    let Some(folder) = testdata("webhooks") else { return };
    let mut tally = Tally::new("webhooks/standard_webhooks_v1.json");
    let file = json_file(&folder.join("standard_webhooks_v1.json"));
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 16, "only {} cases", cases.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let secret = case["secret"].as_str().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in case["headers"].as_object().unwrap() {
            let name: http::HeaderName = name.parse().unwrap();
            headers.insert(name, HeaderValue::from_str(value.as_str().unwrap()).unwrap());
        }
        let body = case["body"].as_str().unwrap().as_bytes();
        let now = case["now"].as_u64().unwrap();
        let tolerance = Duration::from_secs(case["tolerance_s"].as_u64().unwrap());
        let key = VerifyingKey::parse(secret).unwrap();
        let verified = Verifier::new(vec![key]).with_tolerance(tolerance).verify(&headers, body, now);
        let expected = case["valid"].as_bool().unwrap();
        let mut result = match &verified {
            Ok(()) if expected => Ok(()),
            Err(_) if !expected => Ok(()),
            outcome => Err(format!("expected valid = {expected}, seen {outcome:?}")),
        };
        // What is valid is also what this product signs; a secret too short to sign with may still be verified.
        if let (true, Ok(key)) = (expected, SigningKey::parse(secret)) {
            let text = |name: &str| headers[name].to_str().unwrap();
            let signed =
                Signer::new(vec![key]).sign(text("webhook-id"), text("webhook-timestamp").parse().unwrap(), body);
            let signed = signed.to_str().unwrap();
            if !text(SIGNATURE.as_str()).split(' ').any(|one| one == signed) {
                result = Err(format!("signed as {signed}"));
            }
        }
        tally.decided(name, result);
    }
    tally.finish();
}
