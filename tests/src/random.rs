//! A small seeded generator, so that a failing run can be repeated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64: enough to spread moments, repeatable from its seed.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator whose seed is `TIDEGATE_SEED`, or the time; the seed is printed either way.
    pub fn from_environment() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as u64);
        let seed = crate::machine::number_from_environment("TIDEGATE_SEED", now);
        eprintln!("seed: TIDEGATE_SEED={seed}");
        Self { state: seed }
    }

    /// Sixty-four bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A duration between two bounds, in milliseconds, the upper one excluded.
    pub fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.bits() % (to - from).max(1))
    }
}
