//! `POST /apply`.

use http::Method;
use serde_json::Value;

use super::{Answer, Gateway};

const TOPIC: &str = "apiVersion: tidegate.dev/v1\nkind: Topic\nmetadata: {name: orders}\nspec: {partitions: 2}\n";
const SUBSCRIPTION: &str = "---\napiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: large}\nspec:\n  topics: [orders]\n  \
                            sink: https://example.com/a\n";

fn outcomes(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let results = answer.body["results"].as_array().unwrap();
    results
        .iter()
        .map(|entry| format!("{} {}{}", text(entry, "name"), text(entry, "outcome"), text(entry, "code")))
        .collect()
}

#[tokio::test]
async fn resources_are_brought_into_force_one_by_one() {
    let gateway = Gateway::start().await;
    let apply = |path: &'static str, body: String| {
        let gateway = &gateway;
        async move { gateway.send(Method::POST, path, body).await }
    };
    let both = format!("{TOPIC}{SUBSCRIPTION}");
    let dry = apply("/apply?dryRun=true", both.clone()).await;
    assert_eq!(outcomes(&dry), ["orders created", "large created"]);
    assert_eq!(gateway.send(Method::GET, "/topics/orders", "").await.status, 404);
    assert_eq!(outcomes(&apply("/apply", both.clone()).await), ["orders created", "large created"]);
    assert_eq!(outcomes(&apply("/apply", both.clone()).await), ["orders unchanged", "large unchanged"]);
    let other = both.replace("partitions: 2", "partitions: 3").replace("com/a", "com/b");
    for path in ["/apply?dryRun", "/apply"] {
        assert_eq!(outcomes(&apply(path, other.clone()).await), ["orders refusedconflict", "large changed"], "{path}");
    }
    let shown = gateway.send(Method::GET, "/subscriptions/large", "").await;
    assert_eq!(shown.body["sink"], "https://example.com/b");
    let private = SUBSCRIPTION.replace("https://example.com/a", "http://10.0.0.1/");
    assert_eq!(outcomes(&apply("/apply", private).await), ["large refusedforbidden"]);

    let faulty = apply("/apply", format!("{TOPIC}{}", SUBSCRIPTION.replace("topics", "topcs"))).await;
    assert_eq!(faulty.code(), "invalid-resource");
    let places = faulty.body["faults"].as_array().unwrap().iter().map(|fault| &fault["attribute"]);
    assert_eq!(places.collect::<Vec<_>>(), ["9:1", "10:3"], "{faulty:?}");
    for body in ["", "a: b", &SUBSCRIPTION.replace("https://", "https://${env:HOME}.")] {
        assert_eq!(apply("/apply", body.to_owned()).await.code(), "invalid-resource", "{body}");
    }
    gateway.stop().await;
}
