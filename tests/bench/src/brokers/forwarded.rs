//! A commit that another gateway asks for: lane there, append, acknowledgement, lane back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate::compose::{Opened, open_backbone};
use tidegate_backbone::claim::{self, Claims};
use tidegate_backbone::request::{Hub, MemberInfo, Options, Refusal, Request, Requests, To};
use tidegate_backbone::slot::{Command, Expect, SlotHandle};
use tidegate_backbone::{Environment, Lane, NodeId, Record};
use tidegate_resources::config::Backbone;

use super::bare;
use super::{HANG, OnBroker, Operation, own_slots, slots, times};
use crate::Failure;
use crate::figures::{Figures, print_table};
use crate::process::wait_for_quiet;

/// Two gateways, one of which owns a slot.
struct Pair {
    owner: Requests,
    other: Requests,
    at_owner: Operation,
    by_other: Operation,
}

pub(super) async fn run(
    arguments: &OnBroker,
    backbone: Backbone,
    opened: Opened,
    environment: Environment,
) -> Result<(), Failure> {
    let bare = bare::open(&arguments.backbone, &opened, "forwarded").await?;
    let pair = match &opened.lane {
        Some(lane) => shared(&backbone, &opened, lane, &environment).await?,
        None => alone(&opened, &environment).await?,
    };
    let Pair { owner, other, at_owner, by_other } = pair;
    owner.serve("echo", Arc::new(|request: Request| async move { Ok(request.body) }));
    while !other.members().iter().any(|member| member.services.iter().any(|service| service == "echo")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let contenders = [
        ("append of the client library", bare.append(Record::Frame(vec![b'x'; 200].into()))),
        ("commit at the owner", Arc::clone(&at_owner)),
        ("lane there and back", call(&other, owner.node(), "echo")),
        ("commit by another gateway", by_other),
        ("commit at the owner, again", at_owner),
    ];
    let mut medians = vec![Figures::default(); contenders.len()];
    let mut worst = vec![Figures::default(); contenders.len()];
    for _ in 0..arguments.rounds {
        for (at, (_, operation)) in contenders.iter().enumerate() {
            wait_for_quiet(&arguments.common);
            let times = times(arguments.seconds, operation).await?;
            medians[at].push(times.quantile(0.5));
            worst[at].push(times.quantile(0.99));
        }
    }
    let row = |at: usize| vec![contenders[at].0.to_owned(), medians[at].text(3), worst[at].text(3)];
    let rows: Vec<Vec<String>> = (0..contenders.len()).map(row).collect();
    print_table(&["one after the other", "p50 ms", "p99 ms"], &rows);
    let budget = medians[1].plus(&medians[2]);
    print_table(
        &["of the same round, p50", "ratio"],
        &[
            vec![
                "**by another gateway / (at the owner + lane)**".to_owned(),
                format!("**{}**", medians[3].ratio(&budget).text(2)),
            ],
            vec!["at the owner / append".to_owned(), medians[1].ratio(&medians[0]).text(2)],
            vec!["control: at the owner again / at the owner".to_owned(), medians[4].ratio(&medians[1]).text(2)],
        ],
    );
    other.leave().await;
    owner.leave().await;
    Ok(())
}

async fn join(lane: &Arc<dyn Lane>, environment: &Environment) -> Result<Requests, Failure> {
    Ok(Requests::open(Arc::clone(lane), MemberInfo::default(), environment, Options::default()).await?)
}

/// As gateways on a broker do it: both follow the slot of the catalogue, which one of them owns.
async fn shared(
    backbone: &Backbone,
    opened: &Opened,
    lane: &Arc<dyn Lane>,
    environment: &Environment,
) -> Result<Pair, Failure> {
    let second = open_backbone(backbone, environment).await?;
    let second_lane = second.lane.clone().ok_or("the second gateway has no lane")?;
    let mut processes = Vec::new();
    for (log, lane) in [(&opened.log, lane), (&second.log, &second_lane)] {
        let requests = join(lane, environment).await?;
        let options = claim::Options::default();
        let claims = Claims::join(Arc::clone(log), requests.clone(), environment.clone(), options).await?;
        processes.push((requests, claims));
    }
    let owned = |claims: &Claims| claims.owners().iter().any(|ownership| ownership.slot == 0 && ownership.here);
    let own = async {
        while !processes.iter().any(|(_, claims)| owned(claims)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(HANG, own).await.map_err(|_| "nobody has taken the slot")?;
    if !owned(&processes[0].1) {
        processes.swap(0, 1);
    }
    let slot = |at: usize| slots::commit(processes[at].1.slot(0));
    let (at_owner, by_other) = (slot(0), slot(1));
    Ok(Pair { owner: processes[0].0.clone(), other: processes[1].0.clone(), at_owner, by_other })
}

/// A gateway that has its log for itself forwards nothing; there a request and the lane inside the process show what
/// forwarding adds by itself.
async fn alone(opened: &Opened, environment: &Environment) -> Result<Pair, Failure> {
    let lane = Hub::default().lane();
    let (owner, other) = (join(&lane, environment).await?, join(&lane, environment).await?);
    let journals = own_slots(opened, environment).await?;
    let slot = Arc::new(journals[0].clone()) as Arc<dyn SlotHandle>;
    let at_owner = slots::commit(Arc::clone(&slot));
    let handler = move |request: Request| {
        let slot = Arc::clone(&slot);
        async move {
            let command = Command::new().put("bench/forwarded", Expect::Any, request.body);
            let committed = slot.commit(command).await.map_err(|error| Refusal::new("commit", error.to_string()))?;
            Ok(Bytes::from(committed.revision.to_le_bytes().to_vec()))
        }
    };
    owner.serve("commit", Arc::new(handler));
    let by_other = call(&other, owner.node(), "commit");
    Ok(Pair { owner, other, at_owner, by_other })
}

fn call(from: &Requests, to: NodeId, service: &'static str) -> Operation {
    let (from, body) = (from.clone(), Bytes::from(vec![b'v'; 100]));
    Arc::new(move |_| {
        let (from, body) = (from.clone(), body.clone());
        Box::pin(async move {
            from.call(To::Node(to), service, body, HANG).await?;
            Ok(())
        })
    })
}
