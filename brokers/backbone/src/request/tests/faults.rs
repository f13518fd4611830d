//! A lane that loses, repeats, reorders and cuts messages: every call ends once, with the truth.

use std::result::Result;

use proptest::prelude::*;

use super::*;
use crate::error::Applied;

/// Small, so that bodies have many chunks.
const MESSAGE_BYTES: usize = 4 * 1024 + limits::LANE_HEADER_BYTES;
const TIMEOUT: Duration = Duration::from_secs(5);
const CALLS: u32 = 24;

/// Numbers that follow from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }
}

/// A lane on which one message in `rarity` meets a fault.
fn faulty(hub: &Hub, seed: u64, rarity: u64) -> Arc<dyn Lane> {
    let mut draw = Draw(seed);
    Faulty::new(hub.lane(), MESSAGE_BYTES, move |_| {
        if draw.below(rarity) > 0 {
            return Fate::Arrives;
        }
        match draw.below(6) {
            0 => Fate::Lost,
            1 | 2 => Fate::Twice,
            3 => Fate::Late(Duration::from_millis(draw.below(3_000))),
            4 => Fate::Cut(draw.below(100) as usize),
            _ => Fate::Full,
        }
    })
}

/// The reply to a request that begins with its number.
fn reply_to(request: &Bytes) -> Bytes {
    request.iter().rev().map(|byte| byte ^ 0x5a).collect()
}

/// What was wrong, where something was.
async fn run(seed: u64, rarity: u64, checks: Checks) -> Result<(), String> {
    let hub = Hub::default();
    let environment = Machine::new(SECOND).environment();
    let options = Options { checks, ..Options::default() };
    let a = open_with(faulty(&hub, seed, rarity), &environment, options.clone()).await;
    let b = open_with(faulty(&hub, !seed, rarity), &environment, options).await;
    let executions = Executions::default();
    let noted = executions.clone();
    let handler = move |request: Request| {
        noted.note(&request.body);
        async move { Ok(reply_to(&request.body)) }
    };
    b.serve("turn", Arc::new(handler));
    while !a.members().iter().any(|member| member.services.iter().any(|service| service == "turn")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut draw = Draw(seed ^ 0xabcd);
    let calls = (0..CALLS).map(|number| {
        let most = [1, 100, 20_000, 600_000][draw.below(4) as usize];
        let fill = (0..draw.below(most)).map(|at| ((at * u64::from(number + 1)) >> 5) as u8);
        let request: Bytes = number.to_le_bytes().into_iter().chain(fill).collect();
        let (pause, a, b, executions) = (draw.below(200), &a, b.node(), executions.clone());
        async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let start = Instant::now();
            let result = a.call(To::Node(b), "turn", request.clone(), TIMEOUT).await;
            if start.elapsed() > TIMEOUT {
                return Err(format!("call {number} took {:?}", start.elapsed()));
            }
            // Whatever is still under way has come by then.
            tokio::time::sleep(2 * TIMEOUT).await;
            let times = executions.of(&request);
            match result {
                Ok(reply) if reply != reply_to(&request) => Err(format!("call {number} got another reply")),
                Ok(_) if times != 1 => Err(format!("call {number} was answered and carried out {times} times")),
                Err(error) if error.applied() == Applied::No && times > 0 => {
                    Err(format!("call {number}: {error}, but it was"))
                }
                Err(_) if times > 1 => Err(format!("call {number} was carried out {times} times")),
                _ => Ok(()),
            }
        }
    });
    for result in futures_util::future::join_all(calls).await {
        result?;
    }
    if !(nothing_left(&a) && nothing_left(&b)) {
        return Err(format!("something is left: {:?} {:?}", a.counted(), b.counted()));
    }
    let carried_out: usize = executions.0.lock().values().sum();
    if carried_out > CALLS as usize {
        return Err(format!("{carried_out} requests were carried out"));
    }
    Ok(())
}

fn run_alone(seed: u64, rarity: u64, checks: Checks) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run(seed, rarity, checks))
}

const ALL: Checks = Checks { repeats: true, chunks: true };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_call_ends_once_and_truly_whatever_the_lane_does(seed in any::<u64>(), rarity in 4_u64..200) {
        prop_assert_eq!(run_alone(seed, rarity, ALL), Ok(()));
    }
}

/// The controls: what makes it so is needed.
#[test]
fn without_its_checks_a_faulty_lane_is_noticed() {
    let found = |checks, expected: &str| {
        let mut results = (0..40).map(|seed| run_alone(seed, 20, checks));
        results.any(|result| result.is_err_and(|text| text.contains(expected)))
    };
    assert!(found(Checks { repeats: false, ..ALL }, "times"), "repeated requests are not found out");
    assert!(found(Checks { chunks: false, ..ALL }, "another reply"), "chunks out of order are not found out");
}
