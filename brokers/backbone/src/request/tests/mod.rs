//! Several nodes over a lane in memory, with time that stands still while there is something to do.

mod bodies;
mod calls;
mod faults;
mod faulty;
mod presence;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::*;
use crate::environment::Clock;

use faulty::{Fate, Faulty};

const SECOND: Duration = Duration::from_secs(1);

/// Goes with the runtime's time, so that both stand still together; each machine booted at another moment.
#[derive(Debug)]
struct Machine {
    origin: Instant,
    ahead: Mutex<Duration>,
}

impl Machine {
    fn new(ahead: Duration) -> Arc<Self> {
        Arc::new(Self { origin: Instant::now(), ahead: Mutex::new(ahead) })
    }

    fn environment(self: &Arc<Self>) -> Environment {
        Environment::new(Arc::clone(self) as Arc<dyn Clock>, Environment::system().random)
    }
}

impl Clock for Machine {
    fn unix_milliseconds(&self) -> u64 {
        u64::try_from(self.since_boot().as_millis()).unwrap()
    }

    fn since_boot(&self) -> Duration {
        self.origin.elapsed() + *self.ahead.lock()
    }
}

async fn open(lane: Arc<dyn Lane>) -> Requests {
    open_with(lane, &Machine::new(SECOND).environment(), Options::default()).await
}

async fn open_with(lane: Arc<dyn Lane>, environment: &Environment, options: Options) -> Requests {
    let info = MemberInfo { http: "http://127.0.0.1:1".into(), version: "1".into(), started_at: 7 };
    Requests::open(lane, info, environment, options).await.unwrap()
}

/// Answers with the body that came, and the node that answers before it.
fn echo(requests: &Requests) {
    let node = requests.node();
    let handler = move |request: Request| async move {
        let mut body = node.to_string().into_bytes();
        body.extend_from_slice(&request.body);
        Ok(Bytes::from(body))
    };
    requests.serve("echo", Arc::new(handler));
}

/// Answers when its time has come; the body is how many milliseconds that takes.
fn slow(requests: &Requests) {
    let handler = |request: Request| async move {
        let milliseconds = std::str::from_utf8(&request.body).unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        Ok(Bytes::from_static(b"slow"))
    };
    requests.serve("slow", Arc::new(handler));
}

/// Lets everything happen that needs no time.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn seen_by(requests: &Requests, members: usize) {
    while requests.members().len() != members {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whether nothing is left of calls in a node.
fn nothing_left(requests: &Requests) -> bool {
    requests.node.served.is_idle()
        && requests.node.calls.is_idle()
        && requests.node.environment.memory.used_bytes() == 0
}

#[derive(Clone, Default)]
struct Executions(Arc<Mutex<HashMap<Bytes, usize>>>);

impl Executions {
    fn note(&self, request: &Bytes) {
        // A copy: a slice would keep the memory of the request counted.
        *self.0.lock().entry(Bytes::copy_from_slice(request)).or_default() += 1;
    }

    fn of(&self, request: &Bytes) -> usize {
        self.0.lock().get(request).copied().unwrap_or_default()
    }
}
