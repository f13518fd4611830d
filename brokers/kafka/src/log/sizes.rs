//! About how large the records of a log are. The broker does not tell clients what its logs take, and retention by bytes
//! wants to know: it is taken from the records that were appended and read here.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::ends::Place;

/// Records after which what was seen before counts half.
const RECORDS: u64 = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sizes(Mutex<BTreeMap<Place, (u64, u64)>>);

impl Sizes {
    /// So many records of a log took so many bytes.
    pub(crate) fn saw(&self, place: &Place, records: usize, bytes: usize) {
        let mut seen = self.0.lock();
        let (count, total) = match seen.get_mut(place) {
            Some(seen) => seen,
            None => seen.entry(place.clone()).or_default(),
        };
        *count += records as u64;
        *total += bytes as u64;
        if *count > RECORDS {
            (*count, *total) = (*count / 2, *total / 2);
        }
    }

    /// About what so many records of the log take; 0 where none was seen.
    pub(crate) fn of(&self, place: &Place, records: u64) -> u64 {
        match self.0.lock().get(place) {
            Some((count @ 1.., total)) => {
                u64::try_from(u128::from(records) * u128::from(*total) / u128::from(*count)).unwrap_or(u64::MAX)
            }
            _ => 0,
        }
    }

    /// The topic is gone.
    pub(crate) fn forget(&self, topic: &str) {
        self.0.lock().retain(|(of, _), _| &**of != topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_taken_for_the_rest() {
        let (sizes, place) = (Sizes::default(), (std::sync::Arc::from("orders"), 0));
        assert_eq!(sizes.of(&place, 10), 0);
        sizes.saw(&place, 4, 400);
        assert_eq!(sizes.of(&place, 10), 1_000);
        sizes.saw(&place, 1_000_000, 1_000_000 * 300);
        assert!((290..=300).contains(&sizes.of(&place, 1)));
        sizes.forget("orders");
        assert_eq!(sizes.of(&place, 10), 0);
    }
}
