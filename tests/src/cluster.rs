//! Several gateways on one broker, and what they say of their slots.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_conformance::Broker;

use crate::PATIENCE;
use crate::client::Client;
use crate::gateway::{Gateway, Options, binary};
use crate::home::Home;
use crate::load;
use crate::machine::not_had;
use crate::sink::Delivery;

/// Slots that a cluster is created with where nothing is said.
pub const SLOTS: usize = 16;

/// The broker of that name (`kafka3`, `nats-auth`), where this machine and the gateway under test have it.
///
/// # Panics
///
/// Where it does not start.
pub async fn broker(name: &str) -> Option<Broker> {
    if is_built_in(name).await { Broker::start(name).await } else { None }
}

/// Whether the gateway under test drives brokers of that name; says so where it does not.
///
/// # Panics
///
/// Where it cannot be started.
pub async fn is_built_in(name: &str) -> bool {
    let version = tokio::process::Command::new(binary(false)).arg("--version").output().await;
    let version = version.unwrap_or_else(|error| panic!("the gateway tells no version: {error}"));
    let kind = name.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or(name);
    if !String::from_utf8_lossy(&version.stdout).contains(kind) {
        not_had(name, "the gateway under test was built without it");
        return false;
    }
    true
}

/// A gateway of a cluster with the folder that it lives in.
#[derive(Debug)]
pub struct Member {
    /// Its folder, with resources of its own.
    pub home: Home,
    /// Its process.
    pub gateway: Gateway,
}

impl Member {
    /// Starts a gateway on a broker, in a home of its own.
    ///
    /// # Panics
    ///
    /// Where it does not get ready.
    pub async fn start(broker: &Broker) -> Self {
        Self::start_in(Home::new(), broker).await
    }

    /// The same in a home that has resources already.
    ///
    /// # Panics
    ///
    /// Where it does not get ready.
    pub async fn start_in(home: Home, broker: &Broker) -> Self {
        let options = Options { backbone: Some(broker.url().to_owned()), ..Options::default() };
        let gateway = home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"));
        Self { home, gateway }
    }

    /// A client of it.
    pub fn client(&self) -> &Client {
        self.gateway.client()
    }
}

/// What a gateway says of the cluster.
///
/// # Panics
///
/// Where it says nothing.
pub async fn shown(client: &Client) -> Value {
    client.get("/cluster").await.unwrap_or_else(|error| panic!("/cluster: {error}")).expect(200).json()
}

/// The owner of each slot by its HTTP address, and the epoch; slots without a living owner are left out.
pub fn owners(shown: &Value) -> Owners {
    let slots = shown["slots"].as_array().unwrap_or_else(|| panic!("slots are listed: {shown:#}"));
    let owner = |slot: &Value| {
        let number = slot["slot"].as_u64().expect("a slot has a number");
        let epoch = slot["epoch"].as_u64().expect("a slot has an epoch");
        Some((number, (slot["http"].as_str()?.to_owned(), epoch)))
    };
    slots.iter().filter_map(owner).collect()
}

/// Who owns each slot: the gateway's address, and the epoch.
pub type Owners = BTreeMap<u64, (String, u64)>;

/// Waits until these gateways, and no others, own every slot, each its share of those with deliveries, and all of them say the
/// same: from then on nothing moves by itself. Gives who owns what, and how long it took.
///
/// # Panics
///
/// Where it does not come to that.
pub async fn settled(members: &[&Member]) -> (Owners, Duration) {
    // Slots move one after the other to a gateway that has joined, so that the first one says nothing yet.
    agreed(members, |owners, addresses| {
        let share = |http: &String| owners.iter().filter(|(slot, (owner, _))| **slot != 0 && owner == http).count();
        let shares: Vec<usize> = addresses.iter().map(share).collect();
        shares.iter().max() <= shares.iter().min().map(|least| least + 1).as_ref()
    })
    .await
}

/// Waits until these gateways, and no others, own every slot, and all of them say the same. Where their shares differ slots may
/// move after that.
///
/// # Panics
///
/// Where it does not come to that.
pub async fn owned(members: &[&Member]) -> (Owners, Duration) {
    agreed(members, |_, _| true).await
}

async fn agreed(members: &[&Member], fits: impl Fn(&Owners, &BTreeSet<String>) -> bool) -> (Owners, Duration) {
    let began = Instant::now();
    let wanted: BTreeSet<String> = members.iter().map(|member| member.client().address().to_string()).collect();
    loop {
        let mut views = Vec::new();
        for member in members {
            views.push(owners(&shown(member.client()).await));
        }
        let first = &views[0];
        let owning: BTreeSet<String> = first.values().map(|(http, _)| http.clone()).collect();
        let agree = views.iter().all(|view| view == first);
        if first.len() == SLOTS && owning == wanted && agree && fits(first, &wanted) {
            return (first.clone(), began.elapsed());
        }
        assert!(began.elapsed() < PATIENCE, "the slots do not settle on {wanted:?}: {views:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a condition holds.
///
/// # Panics
///
/// Where it never does.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

/// The sum of a figure of `/metrics` over all its labels that contain a text.
///
/// # Panics
///
/// Where there are no figures.
pub async fn figure(client: &Client, name: &str, label: &str) -> f64 {
    let answer = client.get("/metrics").await.unwrap_or_else(|error| panic!("/metrics: {error}")).expect(200);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let lines = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
    });
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// The ids of a load that were acknowledged.
pub fn acknowledged(acknowledged: &[u64]) -> Vec<String> {
    let of = |(producer, count): (usize, &u64)| (0..*count).map(move |n| load::id(producer, n)).collect::<Vec<_>>();
    acknowledged.iter().enumerate().flat_map(of).collect()
}

/// What a sink made of a load whose events may come more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Events that came.
    pub distinct: usize,
    /// Arrivals of events that had come before.
    pub repeats: usize,
    /// Events that came for the first time before an earlier one of their key had come.
    pub early: Vec<String>,
}

/// Judges the order of arrivals: of each producer, an event may come for the first time only when all before it have.
pub fn order(deliveries: &[Delivery]) -> Order {
    let mut next: HashMap<usize, u64> = HashMap::new();
    let mut order = Order::default();
    for delivery in deliveries {
        let Some((producer, n)) = load::parse_id(&delivery.id) else { continue };
        let due = next.entry(producer).or_default();
        match n.cmp(due) {
            std::cmp::Ordering::Less => order.repeats += 1,
            std::cmp::Ordering::Equal => {
                order.distinct += 1;
                *due += 1;
            }
            std::cmp::Ordering::Greater => order.early.push(delivery.id.clone()),
        }
    }
    order
}
