//! Acknowledged means durable: the gateway is killed under load, again and again, on the same data.
//!
//! `TIDEGATE_CRASHES` sets how often (200), `TIDEGATE_SEED` repeats the moments of a run. A kill takes the process and
//! leaves the machine's page cache, so this shows that nothing is acknowledged before it was handed to the file system;
//! that it was also synced is what `durability_order` shows.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use tidegate_tests::checker::{self, Verdict};
use tidegate_tests::gateway::Options;
use tidegate_tests::home::Home;
use tidegate_tests::load::{Counts, Load};
use tidegate_tests::machine::{not_had, number_from_environment};
use tidegate_tests::random::Random;

const PRODUCERS: usize = 8;
const CYCLES_BETWEEN_CHECKS: u64 = 20;

/// Starts the gateway, publishes, and kills it in the middle.
async fn cycle(home: &Home, load: &Load, random: &mut Random, options: Options) -> Counts {
    let gateway = home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"));
    let running = load.begin(gateway.client());
    tokio::time::sleep(random.milliseconds(100, 400)).await;
    gateway.kill().await;
    running.finish().await
}

/// Starts the gateway once more, without any fault, and reads everything back.
async fn verify(home: &Home, load: &Load) -> Verdict {
    let gateway = home.start().await;
    let read = checker::read_topic(gateway.client(), load.topic()).await;
    gateway.kill().await;
    checker::check(&load.acknowledged(), &read)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let crashes = number_from_environment("TIDEGATE_CRASHES", 200);
    let (home, load, mut random) = (Home::new(), Load::new("crash", PRODUCERS), Random::from_environment());
    let mut cycles_with_progress = 0;
    let mut unanswered = 0;
    for crash in 1..=crashes {
        let counts = cycle(&home, &load, &mut random, Options::default()).await;
        cycles_with_progress += u64::from(counts.acknowledged > 0);
        unanswered += counts.unanswered;
        if crash % CYCLES_BETWEEN_CHECKS == 0 {
            let verdict = verify(&home, &load).await;
            eprintln!("{crash} crashes: {verdict}");
            verdict.assert_sound();
        }
    }
    let verdict = verify(&home, &load).await;
    println!("{crashes} crashes, {cycles_with_progress} with progress, {unanswered} requests cut off: {verdict}");
    verdict.assert_sound();
    assert!(verdict.acknowledged >= crashes, "less than one acknowledgement a crash: {verdict}");
    assert!(cycles_with_progress * 10 >= crashes * 9, "only {cycles_with_progress} of {crashes} runs did anything");
    assert!(unanswered >= crashes, "the kills met no request in flight, so they showed nothing: {unanswered}");
}

/// The control: a gateway that acknowledges before it writes must be caught by the very same procedure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledging_before_the_write_is_caught() {
    if std::env::var_os("TIDEGATE_FAULT_BINARY").is_none() {
        not_had("the control of the crash test", "TIDEGATE_FAULT_BINARY names no gateway with `fault-injection`");
        return;
    }
    let (home, load, mut random) = (Home::new(), Load::new("crash", PRODUCERS), Random::from_environment());
    let fault = Options { fault: Some("acknowledge-before-write"), ..Options::default() };
    for crash in 1..=number_from_environment("TIDEGATE_CRASHES", 200) {
        cycle(&home, &load, &mut random, fault.clone()).await;
        if crash % 5 == 0 {
            let verdict = verify(&home, &load).await;
            if verdict.lost > 0 {
                println!("caught after {crash} crashes: {verdict}");
                return;
            }
        }
    }
    panic!("the faulty gateway lost nothing, so the crash test proves nothing; is it built with `fault-injection`?");
}

/// A second kill while the first one is still being recovered from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_by_a_kill_during_recovery() {
    let crashes = number_from_environment("TIDEGATE_CRASHES", 200) / 10;
    let (home, load, mut random) = (Home::new(), Load::new("crash", PRODUCERS), Random::from_environment());
    for _ in 0..crashes {
        cycle(&home, &load, &mut random, Options::default()).await;
        for _ in 0..3 {
            home.start_and_kill(random.milliseconds(1, 40)).await;
        }
    }
    let verdict = verify(&home, &load).await;
    println!("{crashes} crashes, each followed by three during recovery: {verdict}");
    verdict.assert_sound();
    assert!(verdict.acknowledged >= crashes, "less than one acknowledgement a crash: {verdict}");
}
