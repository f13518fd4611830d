use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_backbone::budget::{self, Account, Budget};
use tidegate_schemas::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::telemetry::Metrics;

use super::Limits;

/// Counts connections, in all and by client, and hands out a [`Permit`] for each that is let in.
#[derive(Debug)]
pub(super) struct Admission {
    connections: usize,
    connections_per_address: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    open: watch::Sender<usize>,
    refusals: Arc<Semaphore>,
    memory: Budget,
    metrics: Arc<Metrics>,
}

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Total,
    Address,
    Memory,
}

impl Refused {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Address => "address",
            Self::Memory => "memory",
        }
    }
}

impl Admission {
    pub(super) fn new(limits: &Limits, memory: Budget, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
            by_address: Mutex::default(),
            open: watch::Sender::new(0),
            refusals: Arc::new(Semaphore::new(limits::REFUSALS)),
            memory,
            metrics,
        })
    }

    pub(super) fn admit(this: &Arc<Self>, address: IpAddr) -> Result<Permit, Refused> {
        let address = network(address);
        let mut by_address = this.by_address.lock();
        if *this.open.borrow() >= this.connections {
            return Err(Refused::Total);
        }
        let memory =
            this.memory.try_take(Account::Connections, limits::CONNECTION_BYTES).map_err(|_| Refused::Memory)?;
        let count = by_address.entry(address).or_default();
        if *count >= this.connections_per_address {
            if *count == 0 {
                by_address.remove(&address);
            }
            return Err(Refused::Address);
        }
        *count += 1;
        this.open.send_modify(|open| *open += 1);
        this.metrics.connection_opened();
        Ok(Permit { admission: Arc::clone(this), address, _memory: memory })
    }

    /// One of the few places in which a refused client is told why.
    pub(super) fn place_to_refuse(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.refusals).try_acquire_owned().ok()
    }

    pub(super) fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Resolves when no connection is open.
    pub(super) async fn emptied(&self) {
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open == 0).await.expect("the sender is a field of self");
    }
}

/// The place of one open connection; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    address: IpAddr,
    _memory: budget::Permit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut by_address = self.admission.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
        self.admission.open.send_modify(|open| *open -= 1);
        self.admission.metrics.connection_closed();
    }
}

/// One IPv6 client commonly has a whole /64 network to take addresses from.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_client_and_free_again() {
        let limits = Limits { connections: 4, connections_per_address: 2, ..Limits::default() };
        let metrics = Metrics::new();
        let memory = Budget::new(16 * 4 * limits::CONNECTION_BYTES);
        let admission = Admission::new(&limits, memory.clone(), Arc::clone(&metrics));
        let admit = |address: &str| Admission::admit(&admission, address.parse().unwrap());
        let first = admit("192.0.2.1").unwrap();
        let _mapped = admit("::ffff:192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), Refused::Address);
        let _network = [admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert_eq!(admit("192.0.2.2").unwrap_err(), Refused::Total);
        drop(first);
        assert_eq!(admit("2001:db8::3").unwrap_err(), Refused::Address);
        let again = admit("192.0.2.1").unwrap();
        assert_eq!((admission.open(), admission.by_address.lock().len()), (4, 2));
        drop((again, _mapped, _network));
        assert_eq!((admission.open(), admission.by_address.lock().len()), (0, 0));
        assert!(metrics.render().contains("tidegate_connections 0\n"));
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn a_connection_needs_memory() {
        let memory = Budget::new(16 * limits::CONNECTION_BYTES);
        let admission = Admission::new(&Limits::default(), memory, Metrics::new());
        let admit = || Admission::admit(&admission, [127, 0, 0, 1].into());
        let open = [admit().unwrap(), admit().unwrap(), admit().unwrap()];
        assert_eq!(admit().unwrap_err(), Refused::Memory);
        drop(open);
        assert!(admit().is_ok());
    }
}
