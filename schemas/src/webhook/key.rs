//! The keys, in the forms in which people write them.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ring::{hmac, signature};

use crate::limits::{WEBHOOK_SECRET_BYTES_MAX, WEBHOOK_SECRET_BYTES_MIN};

const SECRET: &str = "whsec_";
const PRIVATE: &str = "whsk_";
const PUBLIC: &str = "whpk_";
const ED25519_SEED_BYTES: usize = 32;
const ED25519_PAIR_BYTES: usize = 64;
const ED25519_PUBLIC_BYTES: usize = 32;

/// Base64 as it is written by the libraries, and as some people copy it: without the padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// HMAC-SHA256 with a shared secret.
    V1,
    /// Ed25519.
    V1a,
}

impl Scheme {
    /// The word before the comma of a signature.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1a => "v1a",
        }
    }
}

/// Why a text is no key. Holds nothing of the text; the message has the form `what; how to mend it`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It begins with none of the prefixes.
    #[error(
        "begins neither with whsec_ nor with whsk_; write whsec_ and the base64 of 32 random bytes, for example by \
         `echo whsec_$(openssl rand -base64 32)`"
    )]
    Prefix,
    /// It is a public key where a private one is needed.
    #[error("is a public key, which cannot sign; use the private one, which begins with whsk_")]
    Public,
    /// It is a private key where a public one is needed.
    #[error("is a private key, which a receiver must not have; use the public one, which begins with whpk_")]
    Private,
    /// What follows the prefix is no base64.
    #[error("is not base64 behind its prefix; copy it whole, with the letters, digits, + and / that it has")]
    Base64,
    /// It can be guessed.
    #[error(
        "has {found} bytes and needs {WEBHOOK_SECRET_BYTES_MIN} to {WEBHOOK_SECRET_BYTES_MAX}; make a new one, for \
         example by `echo whsec_$(openssl rand -base64 32)`"
    )]
    Length {
        /// Its bytes.
        found: usize,
    },
    /// It has not the length of a key of Ed25519.
    #[error(
        "has {found} bytes, and a key of Ed25519 has {ED25519_SEED_BYTES}, or {ED25519_PAIR_BYTES} together with its \
         public half; copy it whole"
    )]
    Ed25519Length {
        /// Its bytes.
        found: usize,
    },
    /// Its two halves do not belong together.
    #[error("has a public half that is not that of its private half; copy it whole, or make a new pair")]
    Ed25519Pair,
}

/// A key that signs.
pub struct SigningKey(Signing);

enum Signing {
    Hmac(hmac::Key),
    Ed25519(Box<Ed25519KeyPair>),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SigningKey").field(&self.scheme()).finish()
    }
}

impl SigningKey {
    /// Reads a secret (`whsec_`) of [`WEBHOOK_SECRET_BYTES_MIN`] to [`WEBHOOK_SECRET_BYTES_MAX`] bytes, or a private key
    /// (`whsk_`): the 32 bytes of its seed, alone or followed by its public half.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        if let Some(text) = text.strip_prefix(SECRET) {
            let bytes = decode(text)?;
            if !(WEBHOOK_SECRET_BYTES_MIN..=WEBHOOK_SECRET_BYTES_MAX).contains(&bytes.len()) {
                return Err(KeyFault::Length { found: bytes.len() });
            }
            return Ok(Self(Signing::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &bytes))));
        }
        if let Some(text) = text.strip_prefix(PRIVATE) {
            let bytes = decode(text)?;
            let pair = match bytes.len() {
                ED25519_SEED_BYTES => Ed25519KeyPair::from_seed_unchecked(&bytes),
                ED25519_PAIR_BYTES => {
                    let (seed, public) = bytes.split_at(ED25519_SEED_BYTES);
                    Ed25519KeyPair::from_seed_and_public_key(seed, public)
                }
                found => return Err(KeyFault::Ed25519Length { found }),
            };
            return pair.map(|pair| Self(Signing::Ed25519(Box::new(pair)))).map_err(|_| KeyFault::Ed25519Pair);
        }
        Err(if text.starts_with(PUBLIC) { KeyFault::Public } else { KeyFault::Prefix })
    }

    /// How it signs.
    pub fn scheme(&self) -> Scheme {
        match &self.0 {
            Signing::Hmac(_) => Scheme::V1,
            Signing::Ed25519(_) => Scheme::V1a,
        }
    }

    /// The public half of a private key (`whpk_`), which its receivers need.
    pub fn public_key(&self) -> Option<String> {
        match &self.0 {
            Signing::Hmac(_) => None,
            Signing::Ed25519(pair) => Some(format!("{PUBLIC}{}", BASE64.encode(pair.public_key()))),
        }
    }

    /// The base64 of the signature over those parts, one behind the other.
    pub(super) fn sign(&self, parts: [&[u8]; 5]) -> String {
        match &self.0 {
            Signing::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                parts.iter().for_each(|part| context.update(part));
                BASE64.encode(context.sign())
            }
            // The scheme hashes the message twice, so it has to have it whole.
            Signing::Ed25519(pair) => BASE64.encode(pair.sign(&parts.concat())),
        }
    }
}

/// A key that verifies.
pub struct VerifyingKey(Verifying);

enum Verifying {
    Hmac(hmac::Key),
    Ed25519([u8; ED25519_PUBLIC_BYTES]),
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("VerifyingKey").field(&self.scheme()).finish()
    }
}

impl VerifyingKey {
    /// Reads a secret (`whsec_`) of any length, because somebody else chose it, or a public key (`whpk_`).
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        if let Some(text) = text.strip_prefix(SECRET) {
            let bytes = decode(text)?;
            if bytes.is_empty() {
                return Err(KeyFault::Length { found: 0 });
            }
            return Ok(Self(Verifying::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &bytes))));
        }
        if let Some(text) = text.strip_prefix(PUBLIC) {
            let bytes = decode(text)?;
            let found = bytes.len();
            let key = bytes.try_into().map_err(|_| KeyFault::Ed25519Length { found })?;
            return Ok(Self(Verifying::Ed25519(key)));
        }
        Err(if text.starts_with(PRIVATE) { KeyFault::Private } else { KeyFault::Prefix })
    }

    /// Which signatures it can judge.
    pub fn scheme(&self) -> Scheme {
        match &self.0 {
            Verifying::Hmac(_) => Scheme::V1,
            Verifying::Ed25519(_) => Scheme::V1a,
        }
    }

    /// Whether those bytes are the signature of the message, in a time that says nothing about the key.
    pub(super) fn verify(&self, message: &[u8], given: &[u8]) -> bool {
        match &self.0 {
            Verifying::Hmac(key) => hmac::verify(key, message, given).is_ok(),
            Verifying::Ed25519(key) => {
                signature::UnparsedPublicKey::new(&signature::ED25519, key).verify(message, given).is_ok()
            }
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, KeyFault> {
    // White space at the end comes with secrets that are read from files.
    BASE64.decode(text.trim_end()).map_err(|_| KeyFault::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prefix: &str, bytes: usize) -> String {
        format!("{prefix}{}", BASE64.encode(vec![7; bytes]))
    }

    #[test]
    fn keys_that_sign_are_strong_and_private() {
        for (text, scheme) in
            [(of(SECRET, 24), Scheme::V1), (of(SECRET, 64), Scheme::V1), (of(PRIVATE, 32), Scheme::V1a)]
        {
            assert_eq!(SigningKey::parse(&text).unwrap().scheme(), scheme, "{text}");
            assert_eq!(SigningKey::parse(text.trim_end_matches('=')).unwrap().scheme(), scheme, "{text}");
            assert_eq!(SigningKey::parse(&format!("{text}\n")).unwrap().scheme(), scheme, "{text}");
        }
        for (text, fault) in [
            (of("", 32), KeyFault::Prefix),
            (of("whsec-", 32), KeyFault::Prefix),
            (of("WHSEC_", 32), KeyFault::Prefix),
            (String::new(), KeyFault::Prefix),
            (of(PUBLIC, 32), KeyFault::Public),
            ("whsec_not base64 at all, and long enough".to_owned(), KeyFault::Base64),
            (of(SECRET, 23), KeyFault::Length { found: 23 }),
            (of(SECRET, 65), KeyFault::Length { found: 65 }),
            (SECRET.to_owned(), KeyFault::Length { found: 0 }),
            (of(PRIVATE, 33), KeyFault::Ed25519Length { found: 33 }),
            (of(PRIVATE, 64), KeyFault::Ed25519Pair),
        ] {
            let found = SigningKey::parse(&text).unwrap_err();
            assert_eq!(found, fault, "{text}");
            assert!(found.to_string().contains("; "), "{found}: how to mend it?");
        }
    }

    #[test]
    fn a_pair_with_its_public_half_is_the_same_key() {
        let seed = [7; ED25519_SEED_BYTES];
        let key = SigningKey::parse(&of(PRIVATE, 32)).unwrap();
        let public = key.public_key().unwrap();
        let mut pair = seed.to_vec();
        pair.extend(BASE64.decode(public.strip_prefix(PUBLIC).unwrap()).unwrap());
        let whole = SigningKey::parse(&format!("{PRIVATE}{}", BASE64.encode(pair))).unwrap();
        let parts: [&[u8]; 5] = [b"m", b".", b"1", b".", b"body"];
        assert_eq!(whole.sign(parts), key.sign(parts));
        assert_eq!(VerifyingKey::parse(&public).unwrap().scheme(), Scheme::V1a);
        assert_eq!(VerifyingKey::parse(&of(PRIVATE, 32)).unwrap_err(), KeyFault::Private);
        assert_eq!(VerifyingKey::parse(&of(PUBLIC, 31)).unwrap_err(), KeyFault::Ed25519Length { found: 31 });
        assert_eq!(VerifyingKey::parse(SECRET).unwrap_err(), KeyFault::Length { found: 0 });
    }

    #[test]
    fn a_key_is_not_shown() {
        let text = of(SECRET, 32);
        let shown = format!("{:?} {:?}", SigningKey::parse(&text), VerifyingKey::parse(&text));
        assert_eq!(shown, "Ok(SigningKey(V1)) Ok(VerifyingKey(V1))");
    }
}
