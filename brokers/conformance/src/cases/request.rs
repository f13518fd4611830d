//! Calls between gateways over the lanes of a broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_backbone::request::wire::Kind;
use tidegate_backbone::request::{Counted, MemberInfo, Options, Refusal, Request, RequestError, Requests, To};
use tidegate_backbone::{Applied, Environment, Lane, NodeId};
use tidegate_schemas::limits;
use tokio::time::Instant;

use super::table;
use crate::broker::Act;
use crate::expect::{Failure, Outcome, holds, same};
use crate::fixture::Fixture;
use crate::meddling::Meddling;
use crate::runner::Case;

/// Against hanging alone.
const HANG: Duration = Duration::from_secs(60);
/// For calls that are to end by their deadline.
const SHORT: Duration = Duration::from_millis(500);
/// Calls of which the times are printed.
const TIMED_CALLS: usize = 400;

pub(super) fn cases() -> Vec<Case> {
    table! {
        "REQ-01" "a request is answered, empty and not, by every node and by itself" [Lane] echo;
        "REQ-02" "10,000 calls at once get each its own reply" [Lane] many;
        "REQ-03" "that nobody is there is told without sending anything" [Lane] nobody;
        "REQ-04" "a node that leaves is gone at once, one that dies after its silence" [Lane] gone;
        "REQ-05" "a call ends with its deadline, and a reply that comes later is dropped" [Lane] deadline;
        "REQ-06" "a request that arrives after its time is not carried out" [Lane] expired;
        "REQ-07" "calls to any node go to all that offer the service" [Lane] spread;
        "REQ-08" "a call to one node is carried out there and nowhere else" [Lane] directed;
        "REQ-09" "a refusal comes back with its code and its words" [Lane] refused;
        "REQ-10" "calls under way while the broker is cut off end, and afterwards calls work again" [Lane, Cut] cut;
        "REQ-11" "a request that comes twice is carried out once" [Lane] repeated;
        "REQ-12" "a node that starts again gets no reply that was for the one before" [Lane] started_again;
        "REQ-13" "the first call right after opening is answered" [Lane] first_call;
        "REQ-14" "bodies of the greatest size go both ways, and larger ones are refused" [Lane] largest;
        "REQ-15" "a call to a node that dies over it ends by its deadline, its outcome unknown" [Lane] dies;
        "REQ-16" "the time of a call is printed, and none is lost" [Lane] timed;
        "REQ-17" "calls work again after the broker was killed and started" [Lane, Restart] restart;
    }
}

/// Processes on one broker.
struct World {
    fixture: Arc<dyn Fixture>,
    /// The machine's: how long a request is under way is a matter of real clocks.
    environment: Environment,
}

impl World {
    fn new(fixture: Arc<dyn Fixture>) -> Self {
        Self { fixture, environment: Environment::system() }
    }

    async fn open(&self) -> Result<Requests, Failure> {
        self.open_on(self.fixture.open_lane(&self.environment).await?).await
    }

    async fn open_on(&self, lane: Arc<dyn Lane>) -> Result<Requests, Failure> {
        let info = MemberInfo { http: "http://127.0.0.1:1".into(), version: "1".into(), started_at: 7 };
        Ok(Requests::open(lane, info, &self.environment, Options::default()).await?)
    }

    async fn meddling(&self) -> Result<(Arc<Meddling>, Requests), Failure> {
        let lane = Meddling::new(self.fixture.open_lane(&self.environment).await?);
        let requests = self.open_on(Arc::clone(&lane) as Arc<dyn Lane>).await?;
        Ok((lane, requests))
    }

    /// Several that know each other, and each of which offers `echo` and `slow`.
    async fn several(&self, count: usize) -> Result<Vec<Requests>, Failure> {
        let mut nodes = Vec::new();
        for _ in 0..count {
            let node = self.open().await?;
            serve(&node);
            nodes.push(node);
        }
        for node in &nodes {
            for other in &nodes {
                knows(node, other.node(), "slow").await?;
            }
        }
        Ok(nodes)
    }

    async fn end(self) -> Outcome {
        holds("everything ends that was started", self.environment.stop(HANG).await, ())
    }
}

/// `echo` answers with the node's id and what came; `slow` after so many milliseconds as came.
fn serve(requests: &Requests) {
    let node = requests.node();
    let echo = move |request: Request| async move {
        let mut body = node.to_string().into_bytes();
        body.extend_from_slice(&request.body);
        Ok(Bytes::from(body))
    };
    let slow = |request: Request| async move {
        let milliseconds = std::str::from_utf8(&request.body).ok().and_then(|text| text.parse().ok());
        let milliseconds = milliseconds.ok_or_else(|| Refusal::new("malformed", "no number came"))?;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        Ok(Bytes::from_static(b"slow"))
    };
    requests.serve("echo", Arc::new(echo));
    requests.serve("slow", Arc::new(slow));
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Outcome {
    let waited = tokio::time::timeout(HANG, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.map_err(|_| Failure::late(format!("expected before long that {what}")))
}

async fn knows(requests: &Requests, node: NodeId, service: &str) -> Outcome {
    let offers = || {
        let members = requests.members();
        members.iter().any(|member| member.node == node && member.services.iter().any(|offered| offered == service))
    };
    until(&format!("a node hears of {service} of another"), offers).await
}

async fn counts(requests: &Requests, what: &str, holds: impl Fn(Counted) -> bool) -> Outcome {
    let waited = until(what, || holds(requests.counted())).await;
    waited.map_err(|failure| failure.and(&format!("and seen {:?}", requests.counted())))
}

fn unknown(what: &str, result: &Result<Bytes, RequestError>) -> Outcome {
    let unknown = matches!(result, Err(error) if error.applied() == Applied::Unknown);
    holds(&format!("the outcome of {what} is unknown"), unknown, result)
}

async fn echo(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let nodes = world.several(3).await?;
    for from in &nodes {
        for to in &nodes {
            for body in ["", "hello"] {
                let reply = from.call(To::Node(to.node()), "echo", body.into(), HANG).await?;
                same("reply", reply, Bytes::from(format!("{}{body}", to.node())))?;
            }
        }
        let member = from.members().iter().find(|member| member.node == nodes[0].node()).cloned();
        same("address", member.map(|member| member.info.http.to_string()), Some("http://127.0.0.1:1".to_owned()))?;
    }
    world.end().await
}

async fn many(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let nodes = world.several(2).await?;
    let to = nodes[1].node();
    let calls = (0..10_000).map(|number: u32| {
        let from = nodes[0].clone();
        async move {
            let body = Bytes::from(number.to_string());
            loop {
                match from.call(To::Node(to), "echo", body.clone(), HANG).await {
                    Ok(reply) => return same("reply", &reply[16..], &body[..]),
                    // No lane has room for all of them.
                    Err(RequestError::Busy { retry_after, .. }) => tokio::time::sleep(retry_after).await,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    });
    for outcome in futures_util::future::join_all(calls).await {
        outcome?;
    }
    world.end().await
}

async fn nobody(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let nodes = world.several(2).await?;
    let absent = NodeId(0x1_0000);
    for (to, service) in [(To::Any, "none"), (To::Node(nodes[1].node()), "none"), (To::Node(absent), "echo")] {
        let result = nodes[0].call(to, service, Bytes::new(), HANG).await;
        holds("nobody is told", matches!(result, Err(RequestError::Nobody(_))), &result)?;
    }
    same("requests sent", nodes[0].counted().requests_sent, 0)?;
    world.end().await
}

async fn gone(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let mut nodes = world.several(3).await?;
    let (dies, leaves) = (nodes.pop(), nodes.pop());
    let (dies, leaves) = dies.zip(leaves).ok_or_else(|| Failure::new("three nodes were opened"))?;
    let (died, left) = (dies.node(), leaves.node());
    leaves.leave().await;
    let there = |node| nodes[0].members().iter().any(|member| member.node == node);
    until("a node that left is gone", || !there(left)).await?;
    holds("the others are there", there(died), nodes[0].members())?;
    drop(dies);
    until("a node that died is gone", || !there(died)).await?;
    for node in [left, died] {
        let result = nodes[0].call(To::Node(node), "echo", Bytes::new(), HANG).await;
        holds("nobody is told", matches!(result, Err(RequestError::Nobody(_))), &result)?;
    }
    world.end().await
}

async fn deadline(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let caller = world.open().await?;
    let (lane, responder) = world.meddling().await?;
    serve(&responder);
    knows(&caller, responder.node(), "slow").await?;
    let to = To::Node(responder.node());
    unknown("a slow handler", &caller.call(to, "slow", "60000".into(), SHORT).await)?;
    lane.keep(|kind| matches!(kind, Kind::Reply { .. }));
    let result = caller.call(to, "echo", Bytes::new(), SHORT).await;
    holds("the deadline is told", matches!(result, Err(RequestError::DeadlineExceeded { .. })), &result)?;
    until("the reply is kept back", || lane.kept() == 1).await?;
    same("late replies so far", caller.counted().late, 0)?;
    lane.release().await;
    counts(&caller, "the late reply is dropped", |counted| counted.late == 1).await?;
    caller.call(to, "echo", Bytes::new(), HANG).await?;
    world.end().await
}

async fn expired(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let (lane, caller) = world.meddling().await?;
    let responder = world.open().await?;
    serve(&responder);
    knows(&caller, responder.node(), "slow").await?;
    lane.keep(|kind| matches!(kind, Kind::Request(..)));
    let result = caller.call(To::Node(responder.node()), "echo", Bytes::new(), SHORT).await;
    unknown("a request that is kept back", &result)?;
    // What beats take counts as the usual way, so that a moment beyond the deadline is not enough.
    tokio::time::sleep(2 * SHORT).await;
    lane.release().await;
    counts(&responder, "the request has expired", |counted| counted.expired == 1).await?;
    same("requests carried out", responder.counted().carried_out, 0)?;
    world.end().await
}

async fn spread(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let nodes = world.several(3).await?;
    let mut answered = HashMap::<Bytes, usize>::new();
    for _ in 0..60 {
        let by = nodes[0].call(To::Any, "echo", Bytes::new(), HANG).await?;
        *answered.entry(by).or_default() += 1;
    }
    let least = answered.values().min().copied().unwrap_or_default();
    holds("all have about the same", answered.len() == 3 && least >= 15, &answered)?;
    world.end().await
}

async fn directed(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let nodes = world.several(3).await?;
    for _ in 0..20 {
        nodes[0].call(To::Node(nodes[2].node()), "echo", Bytes::new(), HANG).await?;
    }
    let carried_out: Vec<u64> = nodes.iter().map(|node| node.counted().carried_out).collect();
    same("requests carried out", carried_out, vec![0, 0, 20])?;
    world.end().await
}

async fn refused(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let nodes = world.several(2).await?;
    let refusal = Refusal::new("fenced", "epoch 7 has begun: ünïcode");
    let answer = refusal.clone();
    nodes[1].serve(
        "refuses",
        Arc::new(move |_| {
            let answer = answer.clone();
            async move { Err(answer) }
        }),
    );
    knows(&nodes[0], nodes[1].node(), "refuses").await?;
    let result = nodes[0].call(To::Any, "refuses", Bytes::new(), HANG).await;
    same("result", result, Err(RequestError::Refused(refusal)))?;
    world.end().await
}

async fn cut(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(Arc::clone(&fixture));
    let nodes = world.several(2).await?;
    let to = To::Node(nodes[1].node());
    let calls = (0..20).map(|_| nodes[0].call(to, "slow", "2000".into(), Duration::from_secs(5)));
    let cutting = async {
        counts(&nodes[1], "the requests are carried out", |counted| counted.carried_out == 20).await?;
        fixture.cut(true).await;
        Ok::<_, Failure>(())
    };
    let (results, cutting) = futures_util::future::join(futures_util::future::join_all(calls), cutting).await;
    cutting?;
    for result in &results {
        // One may have been answered all the same, where the way was cut a moment later.
        if result.is_err() {
            unknown("a call that was cut off", result)?;
        }
    }
    let result = nodes[0].call(to, "echo", Bytes::new(), SHORT).await;
    holds("a call that cannot be sent ends", result.is_err(), &result)?;
    fixture.cut(false).await;
    again(&nodes).await?;
    world.end().await
}

/// Calls are answered before long, both ways.
async fn again(nodes: &[Requests]) -> Outcome {
    for (from, to) in [(0, 1), (1, 0)] {
        let begun = Instant::now();
        loop {
            match nodes[from].call(To::Node(nodes[to].node()), "echo", Bytes::new(), SHORT).await {
                Ok(_) => break,
                Err(error) if begun.elapsed() > HANG => {
                    return Err(Failure::new(format!("expected that calls are answered again, seen {error}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
    Ok(())
}

async fn repeated(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let (lane, caller) = world.meddling().await?;
    let responder = world.open().await?;
    let executions = Arc::<Mutex<HashMap<Bytes, usize>>>::default();
    let noted = Arc::clone(&executions);
    let handler = move |request: Request| {
        *noted.lock().entry(request.body).or_default() += 1;
        async { Ok(Bytes::new()) }
    };
    responder.serve("note", Arc::new(handler));
    knows(&caller, responder.node(), "note").await?;
    lane.repeat();
    for number in 0..50_u32 {
        caller.call(To::Any, "note", number.to_string().into(), HANG).await?;
    }
    counts(&responder, "the repeated ones are found", |counted| counted.duplicates == 50).await?;
    let executions = executions.lock().clone();
    holds(
        "each is carried out once",
        executions.len() == 50 && executions.values().all(|times| *times == 1),
        &executions,
    )?;
    world.end().await
}

async fn started_again(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let (lane, responder) = world.meddling().await?;
    serve(&responder);
    let before = world.open().await?;
    let to = To::Node(responder.node());
    knows(&before, responder.node(), "slow").await?;
    lane.keep(|kind| matches!(kind, Kind::Reply { .. }));
    unknown("a call whose reply is kept back", &before.call(to, "slow", "0".into(), SHORT).await)?;
    let id = before.node();
    drop(before);
    let after = world.open().await?;
    holds("the id is another", after.node() != id, after.node())?;
    knows(&after, responder.node(), "slow").await?;
    let call = after.call(to, "echo", "mine".into(), HANG);
    let releasing = async {
        until("both replies are kept back", || lane.kept() == 2).await?;
        lane.release().await;
        Ok::<_, Failure>(())
    };
    let (reply, releasing) = futures_util::future::join(call, releasing).await;
    releasing?;
    same("reply", reply?, Bytes::from(format!("{}mine", responder.node())))?;
    same("late replies", after.counted().late, 0)?;
    world.end().await
}

async fn first_call(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let responder = world.open().await?;
    serve(&responder);
    for _ in 0..5 {
        let caller = world.open().await?;
        let reply = caller.call(To::Any, "echo", "first".into(), HANG).await?;
        same("reply", reply, Bytes::from(format!("{}first", responder.node())))?;
        caller.leave().await;
    }
    world.end().await
}

async fn largest(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let nodes = world.several(2).await?;
    // Without the node's id, so that both ways have the greatest size.
    nodes[1].serve("back", Arc::new(|request: Request| async move { Ok(request.body) }));
    knows(&nodes[0], nodes[1].node(), "back").await?;
    let body: Bytes = (0..limits::LANE_BODY_BYTES).map(|at| (at / 7) as u8).collect::<Vec<u8>>().into();
    for bytes in [limits::LANE_CHUNK_BYTES, limits::LANE_CHUNK_BYTES + 1, limits::LANE_BODY_BYTES] {
        let sent = body.slice(..bytes);
        let reply = nodes[0].call(To::Any, "back", sent.clone(), HANG / 3).await?;
        holds("the body comes back as it went", reply == sent, (bytes, reply.len()))?;
    }
    let result = nodes[0].call(To::Any, "back", vec![0; limits::LANE_BODY_BYTES + 1].into(), HANG).await;
    same("result", result, Err(RequestError::TooLarge { limit_bytes: limits::LANE_BODY_BYTES }))?;
    world.end().await
}

async fn dies(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let mut nodes = world.several(2).await?;
    let Some(responder) = nodes.pop() else { return Ok(()) };
    let call = nodes[0].call(To::Node(responder.node()), "slow", "60000".into(), Duration::from_secs(10));
    let dying = async {
        let carried_out = counts(&responder, "the request is carried out", |counted| counted.carried_out == 1).await;
        drop(responder);
        carried_out
    };
    let (result, dying) = futures_util::future::join(call, dying).await;
    dying?;
    unknown("a call to a node that died", &result)?;
    world.end().await
}

#[expect(clippy::print_stdout, reason = "a time that is printed and decides nothing")]
async fn timed(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(fixture);
    let nodes = world.several(2).await?;
    let mut times = Vec::with_capacity(TIMED_CALLS);
    for _ in 0..TIMED_CALLS {
        let begun = Instant::now();
        nodes[0].call(To::Node(nodes[1].node()), "echo", "x".into(), HANG).await?;
        times.push(begun.elapsed());
    }
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!("REQ-16  a call, there and back: p50 {:?}, p99 {:?}, of {TIMED_CALLS}", at(50), at(99));
    world.end().await
}

async fn restart(fixture: Arc<dyn Fixture>) -> Outcome {
    let world = World::new(Arc::clone(&fixture));
    let nodes = world.several(2).await?;
    for _ in 0..2 {
        fixture.act(Act::Restart, None).await;
        again(&nodes).await?;
    }
    same("nodes that are there", nodes[0].members().len(), 2)?;
    world.end().await
}
