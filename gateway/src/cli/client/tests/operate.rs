//! Topics, subscriptions and dead letters: what is asked, and what is printed.

use super::{Answer, Invocation, Server, invoke};

const TOPIC: &str = r#"{"name":"orders","partitions":[{"partition":0,"begin":5,"end":15,"events":7,"bytes":2048},{"partition":1,"begin":0,"end":1,"bytes":10}],"keyFrom":"partitionkey","dedupe":{"window":"2m"},"retention":{"age":"7d","bytes":"unlimited"},"origin":{"file":"topics.yaml"},"createdAt":"2026-01-31T08:00:00Z","position":"c12-7","subscriptions":["large"]}"#;
const SUBSCRIPTION: &str = r#"{"id":"large","protocol":"HTTP","sink":"http://127.0.0.1:8081/hook","filters":[{"exact":{"type":"a"}}],"config":{"topics":["orders"],"delivery":{"order":"key"}},"origin":"api","status":{"standing":"paused","reason":"the sink answered 410","queued":1,"parked":2,"inFlight":3,"behind":4}}"#;

const INPUT: &str = r#"{"name":"orders-in","broker":"legacy","direction":"input","queue":"orders","topic":"orders.placed","file":"b.yaml","status":{"state":"paused","reason":"the message \"7\" cannot be an event","since":"2026-01-31T08:00:00Z","gateway":"127.0.0.1:3500","taken":4,"redelivered":1,"rejected":0}}"#;
const OUTPUT: &str = r#"{"name":"orders-out","broker":"legacy","direction":"output","exchange":"orders","routingKey":"{type}","file":"b.yaml","status":{"state":"running"}}"#;

fn dead_letter(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","at":"2026-01-31T08:00:00Z","cause":{{"subscription":"large","sink":"http://h/","topic":"orders","partition":0,"position":"c12","reason":"rejected","status":422,"detail":"no\u001b[31m amount","attempts":1,"firstAttemptAt":0,"lastAttemptAt":1000}},"event":{{"specversion":"1.0","id":"e-{id}","source":"s","type":"t"}}}}"#
    )
}

fn page(ids: &[&str], next: Option<&str>) -> Answer {
    let letters: Vec<String> = ids.iter().map(|id| dead_letter(id)).collect();
    let next = next.map(|next| format!(r#","next":"{next}""#)).unwrap_or_default();
    Answer::json(200, format!(r#"{{"deadLetters":[{}]{next}}}"#, letters.join(",")))
}

/// Runs a command and checks what was asked and what was printed; it is to succeed without a word on standard error.
async fn check(arguments: &str, answers: Vec<Answer>, asked: &[&str], printed: &str) -> Vec<super::Recorded> {
    let server = Server::new(answers).await;
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let outcome = invoke(&server.url, &arguments).await;
    assert_eq!(server.lines(), asked, "{arguments:?}: {outcome:?}");
    assert_eq!(outcome.out, printed, "{arguments:?}");
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{arguments:?}");
    server.requests()
}

#[tokio::test]
async fn topics() {
    let list = || Answer::json(200, format!("{{\"topics\":[{TOPIC}]}}"));
    check(
        "topics list",
        vec![list()],
        &["GET /topics"],
        "NAME    PARTITIONS  EVENTS     SIZE  SUBSCRIPTIONS  ORIGIN\n\
         orders           2       8  2.0 KiB              1  topics.yaml\n",
    )
    .await;
    check("topics list -o json", vec![list()], &["GET /topics"], &format!("{TOPIC}\n")).await;
    let pretty = format!("{{\n  \"topics\": [\n    {}\n  ]\n}}", TOPIC.replace("\"keyFrom\"", "\n\"keyFrom\""));
    check("topics list -o json", vec![Answer::json(200, pretty)], &["GET /topics"], &format!("{TOPIC}\n")).await;
    check(
        "topics show orders",
        vec![Answer::json(200, TOPIC)],
        &["GET /topics/orders"],
        "name           orders\n\
         origin         topics.yaml\n\
         created        2026-01-31T08:00:00Z\n\
         key from       partitionkey\n\
         dedupe window  2m\n\
         kept for       7d\n\
         kept bytes     unlimited\n\
         subscriptions  large\n\
         position       c12-7\n\
         \n\
         PARTITION  BEGIN  END  EVENTS     SIZE\n\
         \x20       0      5   15       7  2.0 KiB\n\
         \x20       1      0    1       1     10 B\n",
    )
    .await;
    check("topics show a/b -o json", vec![Answer::json(200, TOPIC)], &["GET /topics/a%2Fb"], &format!("{TOPIC}\n"))
        .await;
    let created = "created topic orders with 2 partitions\n";
    let requests =
        check("topics create orders --partitions 2", vec![Answer::json(201, TOPIC)], &["PUT /topics/orders"], created)
            .await;
    assert_eq!(requests[0].body, "{\"partitions\":2}");
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
    let there = "already there: topic orders with 2 partitions\n";
    let requests = check("topics create orders", vec![Answer::json(200, TOPIC)], &["PUT /topics/orders"], there).await;
    assert_eq!(requests[0].body, "{}");
    let settings =
        "topics create orders --key-from subject --dedupe-window 0s --retention-age unlimited --retention-bytes 1GiB";
    let requests = check(settings, vec![Answer::json(200, TOPIC)], &["PUT /topics/orders"], there).await;
    let body: serde_json::Value = serde_json::from_str(&requests[0].body).unwrap();
    let retention = serde_json::json!({"age": "unlimited", "bytes": "1GiB"});
    assert_eq!(body, serde_json::json!({"keyFrom": "subject", "dedupe": {"window": "0s"}, "retention": retention}));
    let gone = || vec![Answer::json(204, "")];
    check("topics delete orders", gone(), &["DELETE /topics/orders"], "deleted topic orders\n").await;
    check("topics delete orders -o json", gone(), &["DELETE /topics/orders"], "").await;
}

#[tokio::test]
async fn bindings() {
    let list = || vec![Answer::json(200, format!("[{INPUT},\n{OUTPUT}]"))];
    check(
        "bindings list",
        list(),
        &["GET /bindings"],
        "NAME        DIRECTION  STATE    TAKEN  BROKER  PLACE            TOPIC          REASON\n\
         orders-in   input      paused       4  legacy  queue orders     orders.placed  the message \"7\" cannot be an event\n\
         orders-out  output     running      -  legacy  exchange orders  -              -\n",
    )
    .await;
    check("bindings list -o json", list(), &["GET /bindings"], &format!("{INPUT}\n{OUTPUT}\n")).await;
    check(
        "bindings show orders-in",
        vec![Answer::json(200, INPUT)],
        &["GET /bindings/orders-in"],
        "name           orders-in\n\
         direction      input\n\
         state          paused (the message \"7\" cannot be an event)\n\
         since          2026-01-31T08:00:00Z\n\
         gateway        127.0.0.1:3500\n\
         taken          4\n\
         redelivered    1\n\
         rejected       0\n\
         broker         legacy\n\
         place          queue orders\n\
         routing key    -\n\
         topic          orders.placed\n\
         file           b.yaml\n",
    )
    .await;
    let starting =
        INPUT.replace("paused", "starting").replace("\"reason\":\"the message \\\"7\\\" cannot be an event\",", "");
    let resumed = "resumed binding orders-in; it is now starting\n";
    let asked = ["POST /bindings/orders-in/resume"];
    check("bindings resume orders-in", vec![Answer::json(200, starting.clone())], &asked, resumed).await;
    let json = format!("{starting}\n");
    check("bindings resume orders-in -o json", vec![Answer::json(200, starting)], &asked, &json).await;
}

#[tokio::test]
async fn subscriptions() {
    let list = || vec![Answer::json(200, format!("[{SUBSCRIPTION},\n{SUBSCRIPTION}]"))];
    let row = "large  paused         4       1          3       2  orders  http://127.0.0.1:8081/hook\n";
    check(
        "subscriptions list",
        list(),
        &["GET /subscriptions"],
        &format!("NAME   STANDING  BEHIND  QUEUED  IN FLIGHT  PARKED  TOPICS  SINK\n{row}{row}"),
    )
    .await;
    let lines = format!("{SUBSCRIPTION}\n{SUBSCRIPTION}\n");
    check("subscriptions list -o json", list(), &["GET /subscriptions"], &lines).await;
    check(
        "subscriptions show large",
        vec![Answer::json(200, SUBSCRIPTION)],
        &["GET /subscriptions/large"],
        "name           large\n\
         standing       paused (the sink answered 410)\n\
         behind         4\n\
         queued         1\n\
         in flight      3\n\
         parked         2\npaused keys    -\n\
         topics         orders\n\
         filters        {\"exact\":{\"type\":\"a\"}}\n\
         sink           http://127.0.0.1:8081/hook\n\
         protocol       HTTP\n\
         delivery       {\"order\":\"key\"}\n\
         origin         api\n",
    )
    .await;
    let one = || vec![Answer::json(200, SUBSCRIPTION)];
    let paused = "paused subscription large; it is now paused (the sink answered 410)\n";
    let requests =
        check("subscriptions pause large --reason x", one(), &["POST /subscriptions/large/pause"], paused).await;
    assert_eq!(requests[0].body, "{\"reason\":\"x\"}");
    let requests = check("subscriptions pause large", one(), &["POST /subscriptions/large/pause"], paused).await;
    assert_eq!((requests[0].body.as_str(), requests[0].header("content-type")), ("", None));
    let json = format!("{SUBSCRIPTION}\n");
    check("subscriptions resume large -o json", one(), &["POST /subscriptions/large/resume"], &json).await;
}

#[tokio::test]
async fn dead_letters_are_listed_page_by_page() {
    let pages = || vec![page(&["0-1", "0-2"], Some("0-2")), page(&["1-0"], None)];
    let asked = [
        "GET /subscriptions/large/dead-letters?limit=100",
        "GET /subscriptions/large/dead-letters?limit=100&after=0-2",
    ];
    let row = |id: &str| {
        format!("{id}  2026-01-31T08:00:00Z  rejected     422         1  t     e-{id}  no\\u{{1b}}[31m amount\n")
    };
    check(
        "dead-letters list large",
        pages(),
        &asked,
        &format!(
            "ID   AT                    REASON    STATUS  ATTEMPTS  TYPE  EVENT  DETAIL\n{}{}{}",
            row("0-1"),
            row("0-2"),
            row("1-0")
        ),
    )
    .await;
    let json: String = ["0-1", "0-2", "1-0"].iter().map(|id| dead_letter(id) + "\n").collect();
    check("dead-letters list large -o json", pages(), &asked, &json).await;
    check("dead-letters show large 1-0 -o json", pages(), &asked, &format!("{}\n", dead_letter("1-0"))).await;
    check("dead-letters list large", vec![page(&[], None)], &asked[..1], "").await;

    let server = Server::new(pages()).await;
    let shown = invoke(&server.url, &["dead-letters", "show", "large", "0-1"]).await;
    assert_eq!((shown.code, server.lines().len()), (0, 1));
    for line in ["reason         rejected", "status         422", "first attempt  1970-01-01T00:00:00Z"] {
        assert!(shown.out.lines().any(|other| other == line), "{line} in {}", shown.out);
    }
    let server = Server::new(pages()).await;
    let missing = invoke(&server.url, &["dead-letters", "show", "large", "9-9"]).await;
    assert_eq!(missing.code, 1);
    assert_eq!(missing.err, "error: subscription large has no dead letter 9-9\n");
}

#[tokio::test]
async fn dead_letters_are_redriven_and_dropped() {
    let redrive = "POST /subscriptions/large/dead-letters/redrive";
    let redriven = |count: u32| vec![Answer::json(200, format!("{{\"redriven\":{count}}}"))];
    let requests = check("dead-letters redrive large", redriven(7), &[redrive], "redriven 7 dead letters\n").await;
    assert_eq!(requests[0].body, "{}");
    let requests =
        check("dead-letters redrive large 0-1 0-2 0-1 -o json", redriven(2), &[redrive], "{\"redriven\":2}\n").await;
    assert_eq!(requests[0].body, "{\"ids\":[\"0-1\",\"0-2\"]}");

    let dropped = |count: u32| vec![Answer::json(200, format!("{{\"dropped\":{count}}}"))];
    let all = ["DELETE /subscriptions/large/dead-letters"];
    check("dead-letters drop large --all", dropped(1), &all, "dropped 1 dead letter\n").await;
    let two = ["DELETE /subscriptions/large/dead-letters?id=0-1&id=0-2"];
    check("dead-letters drop large 0-1 0-2", dropped(2), &two, "dropped 2 dead letters\n").await;

    let server = Server::new(redriven(1)).await;
    let short = invoke(&server.url, &["dead-letters", "redrive", "large", "0-1", "0-2"]).await;
    assert_eq!(short.code, 1);
    assert_eq!(short.err, "error: 1 of the dead letters named are not there, or not any more\n");
}

#[tokio::test]
async fn many_dead_letters_are_named_in_parts() {
    let ids: Vec<String> = (0..150).map(|number| format!("0-{number}")).collect();
    let mut arguments = vec!["dead-letters", "drop", "large"];
    arguments.extend(ids.iter().map(String::as_str));
    let server = Server::new([Answer::json(200, "{\"dropped\":100}"), Answer::json(200, "{\"dropped\":50}")]).await;
    let outcome = invoke(&server.url, &arguments).await;
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "dropped 150 dead letters\n"));
    let named: Vec<usize> = server.lines().iter().map(|line| line.matches("id=").count()).collect();
    assert_eq!(named, [100, 50]);
}

#[tokio::test]
async fn hints_are_for_people_only() {
    let server = Server::new([Answer::json(201, TOPIC)]).await;
    let mut invocation = Invocation::new(&server.url, &["topics", "create", "orders"]);
    invocation.attended = true;
    let outcome = invocation.run().await;
    let hint = format!("next: tidegate publish orders --data '{{\"hello\": \"world\"}}' --server {}\n", server.url);
    assert_eq!(outcome.err, hint);
}

#[tokio::test]
async fn log_levels() {
    let answer = |filter: &str| Answer::json(200, format!(r#"{{"filter":"{filter}","configured":"info"}}"#));
    check("log-level", vec![answer("info")], &["GET /log-level"], "info\n").await;
    let asked = check("log-level debug", vec![answer("debug")], &["PUT /log-level"], "debug (began with info)\n").await;
    assert_eq!(asked[0].body, r#"{"filter":"debug"}"#);
    check("log-level --reset", vec![answer("info")], &["DELETE /log-level"], "info\n").await;
}

#[tokio::test]
async fn dead_letters_are_grouped_and_redriven_with_care() {
    let groups = || {
        vec![Answer::json(
            200,
            r#"{"groups":[{"cause":"rejected-422","count":3,"firstAt":"2026-01-31T08:00:00Z","lastAt":"2026-01-31T09:00:00Z","example":"0-1","detail":"no amount"}]}"#,
        )]
    };
    let asked = ["GET /subscriptions/large/dead-letters?group=cause"];
    check(
        "dead-letters list large --group",
        groups(),
        &asked,
        "CAUSE         COUNT  FIRST                 LAST                  EXAMPLE  DETAIL\n\
         rejected-422      3  2026-01-31T08:00:00Z  2026-01-31T09:00:00Z  0-1      no amount\n",
    )
    .await;
    let asked = ["GET /subscriptions/large/dead-letters?limit=100&cause=rejected-422"];
    check("dead-letters list large --cause rejected-422", vec![page(&[], None)], &asked, "").await;

    let redrive = ["POST /subscriptions/large/dead-letters/redrive"];
    let dry = || vec![Answer::json(200, r#"{"redriven":2,"dryRun":true,"more":false,"ids":["0-1","0-2"]}"#)];
    let command = "dead-letters redrive large --cause rejected-422 --dry-run --rate 0.5";
    let requests = check(command, dry(), &redrive, "0-1\n0-2\nwould redrive 2 dead letters\n").await;
    let body: serde_json::Value = serde_json::from_str(&requests[0].body).unwrap();
    let expected = serde_json::json!({"filter": {"cause": "rejected-422"}, "dryRun": true, "ratePerSecond": 0.5});
    assert_eq!(body, expected);

    let folder = tempfile::tempdir().unwrap();
    let edit = folder.path().join("edit.json");
    std::fs::write(&edit, r#"{"data": {"amount": 7}, "subject": null}"#).unwrap();
    let done = || vec![Answer::json(200, r#"{"redriven":1,"dryRun":false,"more":false}"#)];
    let command = format!("dead-letters redrive large 0-1 --edit {}", edit.display());
    let requests = check(&command, done(), &redrive, "redriven 1 dead letter\n").await;
    let body: serde_json::Value = serde_json::from_str(&requests[0].body).unwrap();
    let edits = serde_json::json!({"0-1": {"data": {"amount": 7}, "subject": null}});
    assert_eq!(body, serde_json::json!({"ids": ["0-1"], "edits": edits}));
    let two = invoke("http://h:1", &["dead-letters", "redrive", "large", "0-1", "0-2", "--edit", "x.json"]).await;
    assert_eq!(two.code, 2, "{two:?}");
}

#[tokio::test]
async fn resources_are_applied_and_subscriptions_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    let yaml = "apiVersion: tidegate.dev/v1\nkind: Topic\nmetadata: {name: orders}\n";
    std::fs::write(&path, yaml).unwrap();
    let results = |outcome: &str| {
        let entry = format!(r#"{{"kind":"Topic","name":"orders","outcome":"{outcome}","detail":"why"}}"#);
        Answer::json(200, format!(r#"{{"dryRun":false,"results":[{entry}]}}"#))
    };
    let apply = format!("apply {}", path.display());
    let requests = check(&apply, vec![results("created")], &["POST /apply"], "topic orders created: why\n").await;
    assert_eq!((requests[0].body.as_str(), requests[0].header("content-type")), (yaml, Some("application/yaml")));
    let dry = format!("{apply} --dry-run");
    let asked = ["POST /apply?dryRun=true"];
    check(&dry, vec![results("changed")], &asked, "topic orders would be changed: why\n").await;
    let server = Server::new(vec![results("refused")]).await;
    let refused = invoke(&server.url, &["apply", path.to_str().unwrap()]).await;
    assert_eq!((refused.code, refused.err.as_str()), (1, "error: 1 of 1 resource refused\n"));
    std::fs::write(&path, "apiVersion: tidegate.dev/v1\nkind: Topc\n").unwrap();
    let faulty = invoke("http://127.0.0.1:9", &["apply", path.to_str().unwrap()]).await;
    assert!(faulty.code == 1 && faulty.err.contains("a.yaml:2:7") && faulty.err.contains("`Topic`"), "{faulty:?}");

    let path = folder.path().join("s.json");
    std::fs::write(&path, "{\"id\": \"large\"}").unwrap();
    let create = format!("subscriptions create {}", path.display());
    let answers = vec![Answer::json(201, SUBSCRIPTION)];
    let requests = check(&create, answers, &["POST /subscriptions"], "created subscription large\n").await;
    assert_eq!(requests[0].body, "{\"id\": \"large\"}");
    let gone = vec![Answer::Whole { status: 204, headers: Vec::new(), body: String::new() }];
    let asked = ["DELETE /subscriptions/large"];
    check("subscriptions delete large", gone, &asked, "deleted subscription large\n").await;
}
