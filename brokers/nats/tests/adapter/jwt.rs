//! Keys and tokens of NATS' decentralised accounts (ADR-14), as `nsc` makes them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Operator,
    Account,
    User,
}

impl Kind {
    /// The five bits that the text of a key begins with.
    fn prefix(self) -> u8 {
        match self {
            Self::Account => 0,
            Self::Operator => 14 << 3,
            Self::User => 20 << 3,
        }
    }
}

/// A pair of keys that is nobody's.
pub(super) struct Pair {
    kind: Kind,
    seed: [u8; 32],
    keys: Ed25519KeyPair,
}

impl Pair {
    /// The same one for the same number.
    pub(super) fn new(kind: Kind, number: u8) -> Self {
        let seed = [number; 32];
        let keys = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed has 32 bytes");
        Self { kind, seed, keys }
    }

    pub(super) fn public(&self) -> String {
        text(&[self.kind.prefix()], self.keys.public_key().as_ref())
    }

    pub(super) fn seed(&self) -> String {
        let (seeds, kind) = (18 << 3, self.kind.prefix());
        text(&[seeds | (kind >> 5), (kind & 31) << 3], &self.seed)
    }

    /// A token by which this one vouches for another.
    pub(super) fn signs(&self, subject: &Self, name: &str) -> String {
        let claims = match subject.kind {
            Kind::Operator => json!({ "type": "operator" }),
            Kind::User => json!({ "type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 }),
            Kind::Account => {
                // The system's account stores nothing.
                let storage = if name == "system" { 0 } else { -1 };
                json!({ "type": "account", "limits": {
                    "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
                    "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
                } })
            }
        };
        let mut claims = claims;
        claims["version"] = json!(2);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
        let body = json!({
            "jti": name, "iat": 1_700_000_000, "iss": self.public(), "sub": subject.public(), "name": name, "nats": claims,
        });
        let signed = format!("{}.{}", part(&header), part(&body));
        let signature = URL_SAFE_NO_PAD.encode(self.keys.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The file of a user of this account.
    pub(super) fn credentials(&self, user: &Self) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END \
             USER NKEY SEED------\n",
            self.signs(user, "user"),
            user.seed()
        )
    }
}

/// A key as text: with its prefix and a checksum (CRC-16/XMODEM), in base 32 (RFC 4648 section 6) without padding.
fn text(prefix: &[u8], key: &[u8]) -> String {
    let mut bytes = [prefix, key].concat();
    let mut sum: u16 = 0;
    for byte in &bytes {
        sum ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
        }
    }
    bytes.extend(sum.to_le_bytes());
    let bit = |n: usize| bytes.get(n / 8).is_some_and(|byte| byte & (0x80 >> (n % 8)) != 0);
    let letter = |at: usize| (0..5).fold(0, |value, n| value * 2 + usize::from(bit(at * 5 + n)));
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    (0..(bytes.len() * 8).div_ceil(5)).map(|at| char::from(letters[letter(at)])).collect()
}
