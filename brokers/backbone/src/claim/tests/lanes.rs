//! The same over the lane that gateways use.

use super::*;
use crate::request::{Hub, MemberInfo, Requests};

#[tokio::test(start_paused = true)]
async fn claims_work_over_requests() {
    let (broker, hub) = (MemoryBroker::shared(4), Hub::default());
    let mut nodes = Vec::new();
    for seed in 1..=2 {
        let clock = Arc::<RuntimeClock>::default();
        let environment = Environment::new(clock as Arc<dyn Clock>, Arc::new(SeededRandom::new(seed)));
        let lane = hub.lane();
        let requests = Requests::open(lane, MemberInfo::default(), &environment, Default::default()).await.unwrap();
        let log = broker.client();
        let claims = Claims::join(log, requests.clone(), environment.clone(), Options::default()).await.unwrap();
        let worker = Arc::<Worker>::default();
        claims.begin(Arc::clone(&worker) as Arc<dyn Tenant>).await;
        nodes.push((claims, requests, worker, environment));
    }
    sleep(Duration::from_secs(6)).await;
    let loads: Vec<usize> = nodes.iter().map(|(_, _, worker, _)| worker.journals.lock().len()).collect();
    assert_eq!(loads.iter().sum::<usize>(), 3);
    assert!(loads.iter().all(|load| *load >= 1), "{loads:?}");
    for (index, (claims, ..)) in nodes.iter().enumerate() {
        for slot in 0..4 {
            let key = format!("from {index}");
            claims.slot(slot).commit(put(&key, Expect::Absent, "1")).await.unwrap();
        }
    }
    // The first leaves, as a process does that is to end; the other owns everything, and its commands go on.
    let (claims, requests, _, environment) = nodes.remove(0);
    claims.leave().await;
    requests.leave().await;
    assert!(environment.stop(Duration::from_secs(5)).await, "nothing runs that does not end");
    for slot in 0..4 {
        nodes[0].0.slot(slot).commit(put("after", Expect::Absent, "1")).await.unwrap();
    }
    assert_eq!(nodes[0].2.journals.lock().len(), 3);
}
