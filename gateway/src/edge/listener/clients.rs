use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_schemas::limits;

use crate::edge::problem::{Code, Problem};

use super::Limits;
use super::admission::network;

/// What a client may send ahead of its rate: so much time's worth.
const BURST: Duration = Duration::from_secs(1);
/// What a client waits that has too many requests in flight.
const IN_FLIGHT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often those who ask for nothing are looked for, when the table is full.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Counts the requests of each client address: those that wait for their answer, and how fast they come.
///
/// The table is bounded. Where it is full of clients that all have something out, a further one is not counted; the
/// limits on connections and on the whole hold for it all the same.
#[derive(Debug)]
pub(super) struct Clients {
    in_flight_max: usize,
    /// Between two requests of a client that keeps its rate; none where there is no limit.
    interval: Option<Duration>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_address: HashMap<IpAddr, Client>,
    swept_at: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    in_flight: usize,
    /// When a client that kept its rate would send the next request (generic cell rate algorithm).
    due: Duration,
}

impl Clients {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            in_flight_max: limits.requests_in_flight_per_client,
            interval: limits.requests_per_second_per_client.map(|rate| Duration::from_secs(1) / rate.max(1)),
            table: Mutex::default(),
        })
    }

    /// A place for one request, until the place is dropped. `now` is the time since boot.
    pub(super) fn admit(this: &Arc<Self>, address: IpAddr, now: Duration) -> Result<Place, Problem> {
        let address = network(address);
        let mut table = this.table.lock();
        if table.by_address.len() >= limits::CLIENTS && !table.by_address.contains_key(&address) {
            table.sweep(now);
            if table.by_address.len() >= limits::CLIENTS {
                return Ok(Place(None));
            }
        }
        let client = table.by_address.entry(address).or_default();
        if client.in_flight >= this.in_flight_max {
            let detail = format!(
                "{} requests of this client wait for their answer, and no more may. Send the next when one is answered.",
                client.in_flight
            );
            return Err(Problem::new(Code::TooManyRequests, detail).with_retry_after(IN_FLIGHT_RETRY_AFTER));
        }
        if let Some(interval) = this.interval {
            let due = client.due.max(now);
            let early = (due + interval).saturating_sub(now + BURST);
            if !early.is_zero() {
                let detail = "The client sends more requests in a second than it may.";
                return Err(Problem::new(Code::TooManyRequests, detail).with_retry_after(early));
            }
            client.due = due + interval;
        }
        client.in_flight += 1;
        Ok(Place(Some((Arc::clone(this), address))))
    }
}

impl Table {
    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept_at) >= SWEEP_INTERVAL || self.swept_at.is_zero() {
            self.swept_at = now;
            self.by_address.retain(|_, client| client.in_flight > 0 || client.due > now);
        }
    }
}

/// The place of one request that waits for its answer.
#[derive(Debug)]
pub(super) struct Place(Option<(Arc<Clients>, IpAddr)>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some((clients, address)) = &self.0 else { return };
        let mut table = clients.table.lock();
        if let Some(client) = table.by_address.get_mut(address) {
            client.in_flight -= 1;
            // With a rate to keep, it is remembered until it could send a whole burst again.
            if client.in_flight == 0 && clients.interval.is_none() {
                table.by_address.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(in_flight: usize, rate: Option<u32>) -> Arc<Clients> {
        Clients::new(&Limits {
            requests_in_flight_per_client: in_flight,
            requests_per_second_per_client: rate,
            ..Limits::default()
        })
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn requests_in_flight_are_counted_by_client() {
        let clients = clients(2, None);
        let _first = Clients::admit(&clients, address(1), NOW).unwrap();
        let second = Clients::admit(&clients, address(1), NOW).unwrap();
        let problem = Clients::admit(&clients, address(1), NOW).unwrap_err();
        assert_eq!((problem.code(), problem.retry_after()), (Code::TooManyRequests, Some(IN_FLIGHT_RETRY_AFTER)));
        let _other = Clients::admit(&clients, address(2), NOW).unwrap();
        drop(second);
        let _again = Clients::admit(&clients, address(1), NOW).unwrap();
        drop((_first, _again, _other));
        assert!(clients.table.lock().by_address.is_empty(), "nothing is kept of clients that have nothing out");
    }

    #[test]
    fn a_rate_lets_one_second_through_at_once_and_then_its_pace() {
        let clients = clients(100, Some(10));
        let passed = |now: Duration| (0..50).filter(|_| Clients::admit(&clients, address(1), now).is_ok()).count();
        assert_eq!(passed(NOW), 10);
        assert_eq!(passed(NOW + Duration::from_millis(99)), 0);
        assert_eq!(passed(NOW + Duration::from_millis(100)), 1);
        assert_eq!(passed(NOW + Duration::from_millis(600)), 5);
        assert_eq!(passed(NOW + Duration::from_secs(60)), 10, "what was not used is no credit beyond a second");
        let problem = Clients::admit(&clients, address(1), NOW + Duration::from_secs(60)).unwrap_err();
        assert_eq!(problem.retry_after(), Some(Duration::from_millis(100)));
        assert!(Clients::admit(&clients, address(2), NOW).is_ok());
    }

    #[test]
    fn the_table_is_bounded() {
        let clients = clients(1, Some(1));
        let length = || clients.table.lock().by_address.len();
        let places: Vec<Place> = (0..limits::CLIENTS as u32 + 500)
            .map(|number| Clients::admit(&clients, address(number), NOW).unwrap())
            .collect();
        assert_eq!(length(), limits::CLIENTS);
        drop(places);
        assert_eq!(length(), limits::CLIENTS, "they are remembered for their rate");
        let _new = Clients::admit(&clients, address(u32::from(u16::MAX)), NOW + Duration::from_secs(10)).unwrap();
        assert_eq!(length(), 1, "and forgotten when it says nothing any more");
    }
}
