//! Resource files that are wrong or contradict each other.

use std::process::Command;

use tidegate_tests::client::Outgoing;
use tidegate_tests::gateway;
use tidegate_tests::home::Home;
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::Subscription;

const GOOD: &str = "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: one}\n\
                    spec: {topics: [t], sink: \"http://127.0.0.1:9/\"}\n";

/// Checks `tidegate check` on files given by name and text: it must refuse them and name each of these.
fn check(files: &[(&str, &str)], named: &[&str]) {
    let home = Home::new();
    let paths: Vec<_> = files.iter().map(|(name, text)| home.write_resource(name, text)).collect();
    let output = Command::new(gateway::binary(false)).arg("check").args(&paths).output().expect("it can be started");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{files:?}: {said}");
    for name in named {
        assert!(said.contains(name), "{files:?}: does not name `{name}`: {said}");
    }
}

#[test]
fn faults_are_told_all_at_once_with_file_and_line() {
    check(&[("broken.yaml", "apiVersion: [\n")], &["broken.yaml:"]);
    check(&[("kind.yaml", &GOOD.replace("Subscription", "Subscripton"))], &["kind.yaml:2", "Subscription"]);
    check(&[("key.yaml", &GOOD.replace("topics", "topic"))], &["key.yaml:4", "topics"]);
    check(&[("sink.yaml", &GOOD.replace("http:", "gopher:"))], &["sink.yaml:4", "gopher"]);
    let both = [
        ("a.yaml", &*GOOD.replace("[t]", "[\"a b\"]")),
        ("b.yaml", &*GOOD.replace("one", "two").replace("http://127.0.0.1:9/", "nowhere")),
    ];
    check(&both, &["a.yaml:4", "a b", "b.yaml:4", "nowhere"]);
    // Two files that both claim one name.
    check(&[("first.yaml", GOOD), ("second.yaml", &GOOD.replace("[t]", "[u]"))], &["first.yaml", "second.yaml", "one"]);
}

#[test]
fn good_files_pass() {
    let home = Home::new();
    let path = home.write_resource("good.yaml", GOOD);
    for path in [path, tidegate_tests::workspace_root().join("deploy/gateway.yaml")] {
        let output = Command::new(gateway::binary(false)).arg("check").arg(path).output().expect("it can be started");
        assert!(output.status.success(), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faulty_file_changes_nothing_while_it_runs() {
    let (home, sink, other) = (Home::new(), Sink::accepting().await, Sink::accepting().await);
    let url = sink.url();
    let good = Subscription { name: "one", topics: &["t"], filters: &[], sink: &url, delivery: &["order: key"] };
    home.write_resource("one.yaml", &good.yaml());
    let gateway = home.start().await;
    let publish = async |id: &str| {
        let event = Outgoing { id, key: Some("k"), ..Outgoing::default() };
        gateway.client().publish("t", &event).await.expect("the gateway answers").expect(202);
    };
    publish("before").await;
    sink.wait_for_ids(&["before".to_owned()]).await;

    home.write_resource("one.yaml", "apiVersion: tidegate.dev/v1\nkind: Subscription\nspec: [\n");
    let told = async || {
        while !gateway.stderr().contains("one.yaml") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(tidegate_tests::PATIENCE, told()).await;
    assert!(told.is_ok(), "the fault is not told: {}", gateway.stderr());
    publish("during").await;
    sink.wait_for_ids(&["during".to_owned()]).await;

    let mended = other.url();
    home.write_resource("one.yaml", &Subscription { sink: &mended, ..good }.yaml());
    // The change takes effect in its own time: publish until the new sink is called.
    let mut number = 0;
    while other.ids().is_empty() {
        assert!(number < 600, "the mended file is not read: {}", gateway.stderr());
        publish(&format!("after-{number}")).await;
        number += 1;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let missing: Vec<String> = (0..number).map(|n| format!("after-{n}")).collect();
    let anywhere = |id: &String| sink.ids().contains(id) || other.ids().contains(id);
    other
        .wait_until("the last event", |deliveries| {
            deliveries.iter().any(|delivery| Some(&delivery.id) == missing.last())
        })
        .await;
    assert!(missing.iter().all(anywhere), "the reload lost events: {missing:?} {:?} {:?}", sink.ids(), other.ids());
}
