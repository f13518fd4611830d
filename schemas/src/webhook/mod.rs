//! Signatures of web hooks by Standard Webhooks 1.0: a receiver that shares a secret, or has a public key, can tell that a
//! body came from whom it trusts, unchanged and not long ago.
//!
//! What is signed is `{webhook-id}.{webhook-timestamp}.{body}`. Headers of the event are not in it, so a signed event has
//! to travel in structured mode. The scheme `v1` is HMAC-SHA256 with a shared secret (`whsec_`), `v1a` is Ed25519 with a
//! private key (`whsk_`) whose public half (`whpk_`) the receiver has. A message carries one signature for each key, parted
//! by blanks, and one that matches is enough: so keys are exchanged without a gap.
//!
//! No key is ever shown: not by `Debug`, and not by a fault.

mod key;
mod signature;

use http::HeaderName;

pub use key::{KeyFault, Scheme, SigningKey, VerifyingKey};
pub use signature::{Refusal, Signer, Verifier};

/// The idempotency key of a message, the same for each attempt.
pub const ID: HeaderName = HeaderName::from_static("webhook-id");
/// When the attempt was signed, in seconds since 1970.
pub const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The signatures.
pub const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
