//! Signing and verifying a message.

use std::time::Duration;

use base64::Engine as _;
use http::{HeaderMap, HeaderValue};

use super::key::{BASE64, Scheme, SigningKey, VerifyingKey};
use super::{ID, SIGNATURE, TIMESTAMP};
use crate::limits::WEBHOOK_TOLERANCE;

/// Signs with one or several keys.
#[derive(Debug)]
pub struct Signer {
    keys: Vec<SigningKey>,
}

impl Signer {
    /// A signer that makes one signature with each key, in their order.
    pub fn new(keys: Vec<SigningKey>) -> Self {
        Self { keys }
    }

    /// How it signs, in the order of its keys.
    pub fn schemes(&self) -> impl Iterator<Item = Scheme> {
        self.keys.iter().map(SigningKey::scheme)
    }

    /// The value of `webhook-signature`. An id must not hold a full stop, which parts the signed text; those of
    /// deliveries are hexadecimal digits.
    pub fn sign(&self, id: &str, unix_seconds: u64, body: &[u8]) -> HeaderValue {
        let timestamp = unix_seconds.to_string();
        let mut signatures = String::new();
        for key in &self.keys {
            if !signatures.is_empty() {
                signatures.push(' ');
            }
            signatures.push_str(key.scheme().as_str());
            signatures.push(',');
            signatures.push_str(&key.sign([id.as_bytes(), b".", timestamp.as_bytes(), b".", body]));
        }
        let mut value = HeaderValue::from_str(&signatures).expect("base64, blanks and commas are a header value");
        // No secret, but whoever logs it gives away a message that is good for minutes.
        value.set_sensitive(true);
        value
    }

    /// Adds id, timestamp and signatures to the headers of a message.
    pub fn append_headers(&self, headers: &mut HeaderMap, id: HeaderValue, unix_seconds: u64, body: &[u8]) {
        let signature = self.sign(id.to_str().unwrap_or_default(), unix_seconds, body);
        headers.insert(ID, id);
        headers.insert(TIMESTAMP, HeaderValue::from(unix_seconds));
        headers.insert(SIGNATURE, signature);
    }
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A header is missing, or no text.
    #[error("the header {0} is missing or is no text")]
    Missing(&'static str),
    /// The timestamp is no number of seconds.
    #[error("webhook-timestamp is no number of seconds")]
    Timestamp,
    /// It was signed too long ago.
    #[error("the message was signed too long ago")]
    TooOld,
    /// It was signed in the future.
    #[error("the message was signed in the future")]
    TooNew,
    /// No signature is right.
    #[error("no signature matches")]
    NoMatch,
}

/// Verifies messages, as their receiver does.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<VerifyingKey>,
    tolerance: Duration,
}

impl Verifier {
    /// A verifier that believes what one of the keys confirms, within [`WEBHOOK_TOLERANCE`] of its own clock.
    pub fn new(keys: Vec<VerifyingKey>) -> Self {
        Self { keys, tolerance: WEBHOOK_TOLERANCE }
    }

    /// Another tolerance, in both directions.
    pub fn with_tolerance(self, tolerance: Duration) -> Self {
        Self { tolerance, ..self }
    }

    /// Whether the message can be believed at that time.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now_unix_seconds: u64) -> Result<(), Refusal> {
        let text = |name: &http::HeaderName, shown| {
            headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Refusal::Missing(shown))
        };
        let id = text(&ID, "webhook-id")?;
        let timestamp = text(&TIMESTAMP, "webhook-timestamp")?;
        let signatures = text(&SIGNATURE, "webhook-signature")?;
        let digits = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let at: u64 = timestamp.parse().ok().filter(|_| digits).ok_or(Refusal::Timestamp)?;
        if now_unix_seconds.saturating_sub(at) > self.tolerance.as_secs() {
            return Err(Refusal::TooOld);
        }
        if at.saturating_sub(now_unix_seconds) > self.tolerance.as_secs() {
            return Err(Refusal::TooNew);
        }
        // The text as it came: a leading zero is part of what was signed.
        let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        let matches = |entry: &str| {
            let Some((scheme, text)) = entry.split_once(',') else { return false };
            let Ok(given) = BASE64.decode(text) else { return false };
            self.keys.iter().any(|key| key.scheme().as_str() == scheme && key.verify(&message, &given))
        };
        if signatures.split(' ').any(matches) { Ok(()) } else { Err(Refusal::NoMatch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_792_567_600;
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const PRIVATE: &str = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn signed(keys: &[&str], body: &[u8]) -> HeaderMap {
        let signer = Signer::new(keys.iter().map(|key| SigningKey::parse(key).unwrap()).collect());
        let mut headers = HeaderMap::new();
        signer.append_headers(&mut headers, HeaderValue::from_static("e677cf5d"), NOW, body);
        headers
    }

    fn verify(key: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
        Verifier::new(vec![VerifyingKey::parse(key).unwrap()]).verify(headers, body, NOW)
    }

    #[test]
    fn every_key_of_a_rotation_is_enough_and_no_other() {
        let public = SigningKey::parse(PRIVATE).unwrap().public_key().unwrap();
        let headers = signed(&[OLD, NEW, PRIVATE], b"body");
        let schemes: Vec<_> = headers[SIGNATURE].to_str().unwrap().split(' ').map(|one| &one[..3]).collect();
        assert_eq!(schemes, ["v1,", "v1,", "v1a"]);
        for key in [OLD, NEW, &public] {
            assert_eq!(verify(key, &headers, b"body"), Ok(()), "{key}");
            assert_eq!(verify(key, &headers, b"Body"), Err(Refusal::NoMatch), "{key}");
        }
        for keys in [[OLD, PRIVATE], [PRIVATE, OLD]] {
            assert_eq!(verify(NEW, &signed(&keys, b"body"), b"body"), Err(Refusal::NoMatch));
        }
        // A signature is good for its own scheme only.
        let mut other = headers.clone();
        let text = headers[SIGNATURE].to_str().unwrap().replace("v1,", "v1a,");
        other.insert(SIGNATURE, text.parse().unwrap());
        assert_eq!(verify(OLD, &other, b"body"), Err(Refusal::NoMatch));
    }

    #[test]
    fn ed25519_is_that_of_rfc_8032() {
        // The seed of 7.1, test 1; what is signed has our framing, so the public key is compared and the rest verified.
        let seed = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
        let key = SigningKey::parse(seed).unwrap();
        assert_eq!(key.public_key().unwrap(), "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    }

    #[test]
    fn a_timestamp_is_digits_and_recent() {
        let verifier = Verifier::new(vec![VerifyingKey::parse(OLD).unwrap()]).with_tolerance(Duration::from_secs(5));
        let mut headers = signed(&[OLD], b"");
        for (now, expected) in
            [(NOW - 5, Ok(())), (NOW + 5, Ok(())), (NOW - 6, Err(Refusal::TooNew)), (NOW + 6, Err(Refusal::TooOld))]
        {
            assert_eq!(verifier.verify(&headers, b"", now), expected, "{now}");
        }
        for text in ["", "+1792567600", "1792567600.0", " 1792567600", "99999999999999999999", "-1"] {
            headers.insert(TIMESTAMP, text.parse().unwrap());
            assert_eq!(verifier.verify(&headers, b"", NOW), Err(Refusal::Timestamp), "{text:?}");
        }
    }
}
