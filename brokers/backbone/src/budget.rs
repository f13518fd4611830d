//! Memory as a budget: whatever can grow with what others send, or leave unread, is counted, and beyond the budget new
//! work is refused instead of taken.
//!
//! A [`Permit`] stands for bytes in memory and gives them back when it is dropped. [`Permit::hold`] puts it *into* the
//! bytes, so that they count for as long as anybody holds a slice of them: a record that was read once and waits in the
//! queues of fifty subscriptions counts once, and no queue has to know of the budget to be counted.
//!
//! | account | counts | its share | beyond it |
//! |---|---|---|---|
//! | `connections` | open connections | 3/16 | a new connection is refused |
//! | `bodies` | bodies of requests, from their first byte until the answer | 5/16 | a publish is refused before its body is read |
//! | `appends` | records on their way to the log, and the newest that it keeps for readers | what is left, 2/16 at least | an append is refused |
//! | `reads` | records read for deliveries, followers and pages | 4/16 | a queue that holds something takes no more, followers wait, pages are refused |
//! | `answers` | answers that clients have not taken | 2/16 | large answers are refused, clients that do not read are cut sooner |
//!
//! Shares keep the accounts from starving each other: subscribers that are stuck cannot take the memory that publishing
//! needs, and the other way round. Some bytes cannot be refused, such as a record that is already read; they are counted
//! all the same ([`Budget::take`]), so an account may pass its share by what its next check lets through.
//!
//! What has a fixed bound of its own (caches, indexes, the runtime) is not counted. The budget is a quarter of the
//! machine's memory by default, so that there is room for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;

/// The parts into which shares divide the budget.
const PARTS: usize = 16;

/// What bytes are held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Open connections.
    Connections,
    /// Bodies of requests.
    Bodies,
    /// Records on their way to the log.
    Appends,
    /// Records read from the log.
    Reads,
    /// Answers on their way to clients.
    Answers,
}

impl Account {
    /// Every account.
    pub const ALL: [Self; 5] = [Self::Connections, Self::Bodies, Self::Appends, Self::Reads, Self::Answers];

    /// Its name in figures and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Bodies => "bodies",
            Self::Appends => "appends",
            Self::Reads => "reads",
            Self::Answers => "answers",
        }
    }

    fn parts(self) -> usize {
        match self {
            Self::Connections => 3,
            Self::Bodies => 5,
            Self::Appends => PARTS,
            Self::Reads => 4,
            Self::Answers => 2,
        }
    }
}

/// There is no room for so many bytes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes more for {} do not fit: it holds {used_bytes} of its {limit_bytes} bytes", account.name())]
pub struct Exhausted {
    /// For what.
    pub account: Account,
    /// What was asked for.
    pub bytes: usize,
    /// What the account holds, or the whole budget where that is what is used up.
    pub used_bytes: usize,
    /// The bound that was met.
    pub limit_bytes: usize,
}

/// How one account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it holds.
    pub used_bytes: usize,
    /// The most that it held at once.
    pub peak_bytes: usize,
    /// How often it was asked in vain.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Held {
    used: AtomicUsize,
    peak: AtomicUsize,
    refused: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
    held: [Held; Account::ALL.len()],
}

/// The memory that a process may use for what can grow. Clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

impl fmt::Debug for Budget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Budget");
        debug.field("limit_bytes", &self.limit_bytes()).field("used_bytes", &self.used_bytes()).finish_non_exhaustive()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::unlimited()
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: usize) -> Self {
        let held = std::array::from_fn(|_| Held::default());
        Self(Arc::new(Inner { limit: limit_bytes, used: AtomicUsize::new(0), peak: AtomicUsize::new(0), held }))
    }

    /// Counts and refuses nothing.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX / PARTS)
    }

    /// The bytes that it allows.
    pub fn limit_bytes(&self) -> usize {
        self.0.limit
    }

    /// The bytes that are held now.
    pub fn used_bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The most bytes that were held at once.
    pub fn peak_bytes(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// The share of an account.
    pub fn share_bytes(&self, account: Account) -> usize {
        // Divided first: a budget without limit times its parts would not fit.
        (self.0.limit / PARTS).saturating_mul(account.parts())
    }

    /// How an account stands.
    pub fn standing(&self, account: Account) -> Standing {
        let held = self.held(account);
        Standing {
            used_bytes: held.used.load(Ordering::Relaxed),
            peak_bytes: held.peak.load(Ordering::Relaxed),
            refused: held.refused.load(Ordering::Relaxed),
        }
    }

    /// Counts bytes where there is room for them.
    ///
    /// # Errors
    /// [`Exhausted`], and then nothing is counted.
    pub fn try_take(&self, account: Account, bytes: usize) -> Result<Permit, Exhausted> {
        self.add_within(account, bytes)?;
        Ok(Permit { budget: self.clone(), account, bytes })
    }

    /// Counts bytes that are there already, whatever the budget says.
    pub fn take(&self, account: Account, bytes: usize) -> Permit {
        self.add(account, bytes);
        Permit { budget: self.clone(), account, bytes }
    }

    /// Whether there is room for so many bytes now, without counting them. An answer of no is counted as a refusal.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn check(&self, account: Account, bytes: usize) -> Result<(), Exhausted> {
        let (held, total) = (self.held(account).used.load(Ordering::Relaxed), self.used_bytes());
        let result = self.judge(account, bytes, held.saturating_add(bytes), total.saturating_add(bytes));
        self.note(account, result)
    }

    /// Whether an account has room for anything at all. Not counted as a refusal: whoever asks waits, or does without.
    pub fn has_room(&self, account: Account) -> bool {
        let held = self.held(account).used.load(Ordering::Relaxed);
        self.judge(account, 1, held.saturating_add(1), self.used_bytes().saturating_add(1)).is_ok()
    }

    fn held(&self, account: Account) -> &Held {
        &self.0.held[account as usize]
    }

    fn judge(&self, account: Account, bytes: usize, held: usize, total: usize) -> Result<(), Exhausted> {
        let share = self.share_bytes(account);
        // What comes first, the account's own share or the whole, is what the message is about.
        let (after, limit_bytes) = if held > share { (held, share) } else { (total, self.0.limit) };
        if after > limit_bytes {
            return Err(Exhausted { account, bytes, used_bytes: after.saturating_sub(bytes), limit_bytes });
        }
        Ok(())
    }

    fn note(&self, account: Account, result: Result<(), Exhausted>) -> Result<(), Exhausted> {
        if result.is_err() {
            self.held(account).refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn add(&self, account: Account, bytes: usize) -> (usize, usize) {
        let add = |used: &AtomicUsize, peak: &AtomicUsize| {
            let after = used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
            if after > peak.load(Ordering::Relaxed) {
                peak.fetch_max(after, Ordering::Relaxed);
            }
            after
        };
        let held = self.held(account);
        (add(&held.used, &held.peak), add(&self.0.used, &self.0.peak))
    }

    fn add_within(&self, account: Account, bytes: usize) -> Result<(), Exhausted> {
        // Looked at before it is added, so that a refusal that is taken back at once leaves no peak.
        self.check(account, bytes)?;
        let (held, total) = self.add(account, bytes);
        // Others may have added meanwhile.
        let result = self.judge(account, bytes, held, total);
        if result.is_err() {
            self.give(account, bytes);
        }
        self.note(account, result)
    }

    fn give(&self, account: Account, bytes: usize) {
        self.held(account).used.fetch_sub(bytes, Ordering::Relaxed);
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Budget,
    account: Account,
    bytes: usize,
}

impl Permit {
    /// What it stands for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts so many bytes more.
    ///
    /// # Errors
    /// [`Exhausted`], and then it stands for what it did before.
    pub fn try_grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.budget.add_within(self.account, bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes so many bytes out of it as a permit of their own; nothing where it stands for fewer.
    pub fn split(&mut self, bytes: usize) -> Option<Self> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(Self { budget: self.budget.clone(), account: self.account, bytes })
    }

    /// Puts the permit into bytes: they are counted until the last slice of them is gone.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() { bytes } else { Bytes::from_owner(Owned { bytes, _permit: self }) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.give(self.account, self.bytes);
    }
}

struct Owned {
    bytes: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_ends_at_its_share_and_all_of_them_at_the_limit() {
        let budget = Budget::new(1_600);
        let connections = budget.try_take(Account::Connections, 300).unwrap();
        let refused = budget.try_take(Account::Connections, 1).unwrap_err();
        assert_eq!((refused.used_bytes, refused.limit_bytes), (300, 300));
        let mut bodies = budget.try_take(Account::Bodies, 400).unwrap();
        bodies.try_grow(100).unwrap();
        assert!(bodies.try_grow(1).is_err());
        let appends = budget.try_take(Account::Appends, 800).unwrap();
        let refused = budget.try_take(Account::Reads, 1).unwrap_err();
        assert_eq!((refused.used_bytes, refused.limit_bytes), (1_600, 1_600));
        assert!(!budget.has_room(Account::Reads));
        // What is there already is counted, not refused.
        let forced = budget.take(Account::Reads, 50);
        assert_eq!((budget.used_bytes(), budget.peak_bytes()), (1_650, 1_650));
        drop((connections, bodies, appends, forced));
        assert_eq!(budget.used_bytes(), 0);
        for account in Account::ALL {
            assert_eq!(budget.standing(account).used_bytes, 0, "{}", account.name());
        }
        assert_eq!(budget.standing(Account::Connections).refused, 1);
        assert_eq!(budget.standing(Account::Bodies).refused, 1);
        assert_eq!(budget.standing(Account::Reads).refused, 1);
        assert_eq!(budget.standing(Account::Reads).peak_bytes, 50);
    }

    #[test]
    fn the_shares_leave_something_for_appends() {
        let budget = Budget::new(16_000);
        let others = Account::ALL.into_iter().filter(|account| *account != Account::Appends);
        let permits: Vec<Permit> =
            others.map(|account| budget.try_take(account, budget.share_bytes(account)).unwrap()).collect();
        assert_eq!(budget.used_bytes(), 14_000);
        assert!(budget.try_take(Account::Appends, 2_000).is_ok());
        drop(permits);
    }

    #[test]
    fn bytes_count_once_and_as_long_as_a_slice_of_them_lives() {
        let budget = Budget::new(1_600);
        let bytes = budget.try_take(Account::Reads, 400).unwrap().hold(Bytes::from(vec![7; 400]));
        let queues: Vec<Bytes> = (0..50).map(|at| bytes.slice(at..at + 10)).collect();
        drop(bytes);
        assert_eq!(budget.standing(Account::Reads).used_bytes, 400);
        assert!(queues.iter().all(|slice| slice[..] == [7; 10]));
        drop(queues);
        assert_eq!(budget.standing(Account::Reads).used_bytes, 0);
        assert!(budget.take(Account::Reads, 10).hold(Bytes::new()).is_empty());
        assert_eq!(budget.used_bytes(), 0, "nothing is held of nothing");
    }

    #[test]
    fn many_threads_never_pass_the_limit_and_leave_nothing() {
        let budget = Budget::new(1_600);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut taken = Vec::new();
                    for round in 0..10_000 {
                        taken.extend(budget.try_take(Account::Appends, 1 + round % 100).ok());
                        if round % 97 == 0 {
                            taken.clear();
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.peak_bytes() <= 1_600 + 4 * 100, "{budget:?}");
        assert!(budget.standing(Account::Appends).refused > 0);
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        let budget = Budget::unlimited();
        assert!(Account::ALL.into_iter().all(|account| budget.try_take(account, 1 << 40).is_ok()));
    }
}
