//! Contexts, doctor, cluster and apps.

use super::{Answer, Outcome, Server, invoke};

const CLUSTER: &str = r#"{"nodes":[{"http":"127.0.0.1:3500","version":"9.9.9","startedAt":"2026-01-31T08:00:00.000Z","uptimeSeconds":90,"ready":true,"slots":[0]}],"backbone":{"broker":"embedded","durability":"fsync","slots":1,"partitionsDefault":1}}"#;
const SEVERAL: &str = r#"{"nodes":[{"id":"00000000000a0000","http":"127.0.0.1:3500","version":"9.9.9","startedAt":"2026-01-31T08:00:00.000Z","uptimeSeconds":90,"ready":true,"slots":[0,2,3]},{"id":"00000000000b0000","http":"127.0.0.1:3501","version":"9.9.9","startedAt":"2026-01-31T08:00:00.000Z","uptimeSeconds":90,"ready":false,"slots":[]}],"slots":[{"slot":0,"epoch":7,"owner":"00000000000a0000","http":"127.0.0.1:3500"},{"slot":1,"epoch":3}],"missingSlots":[1],"backbone":{"broker":"nats","version":"2.14.2","reachable":false,"unreachable":"since 2026-01-31T08:00:00Z","durability":"replicated","slots":2,"partitionsDefault":4}}"#;
const APP: &str = r#"{"id":"billing","endpoints":["http://127.0.0.1:8000/"],"health":{"path":"/healthz","interval":"5s","timeout":"500ms","threshold":3},"file":"apps.yaml"}"#;

async fn against(answers: &[&str], arguments: &str) -> Outcome {
    let server = Server::new(answers.iter().map(|answer| Answer::json(200, (*answer).to_owned()))).await;
    invoke(&server.url, &arguments.split_whitespace().collect::<Vec<_>>()).await
}

#[tokio::test]
async fn a_server_says_what_it_is() {
    let shown = against(&[CLUSTER], "cluster show").await;
    assert_eq!((shown.code, shown.out.contains("missing")), (0, false), "{shown:?}");
    for word in ["embedded", "fsync", "127.0.0.1:3500", "9.9.9", "1m30s"] {
        assert!(shown.out.contains(word), "{word}: {shown:?}");
    }
    for part in ["cluster", "cluster show"] {
        let shown = against(&[SEVERAL], part).await;
        for word in
            ["nats 2.14.2, not reached: since", "missing     1 (no gateway", "0,2-3", "127.0.0.1:3501  9.9.9    no "]
        {
            assert!(shown.out.contains(word), "{word}: {shown:?}");
        }
    }
    let slots = against(&[SEVERAL], "cluster slots").await.out;
    assert!(slots.contains("0      7  00000000000a0000  127.0.0.1:3500"), "{slots}");
    assert!(slots.lines().any(|line| line.trim_end().ends_with("1      3  -                 -")), "{slots}");
    assert_eq!(against(&[SEVERAL], "cluster slots -o json").await.out.lines().count(), 2);
    let listed = against(&[CLUSTER], "cluster list -o json").await;
    let node: serde_json::Value = serde_json::from_str(listed.out.trim()).unwrap();
    assert_eq!((listed.out.lines().count(), &node["version"]), (1, &"9.9.9".into()));

    let apps = format!("[{APP}]");
    let listed = against(&[&apps], "apps list").await;
    assert!(listed.out.contains("billing") && listed.out.contains("/healthz"), "{listed:?}");
    assert_eq!(against(&[&apps], "apps list -o json").await.out, format!("{APP}\n"));
    assert!(against(&[&apps], "apps show billing").await.out.contains("unhealthy after 3"));
    let missing = against(&[&apps], "apps show shipping").await;
    assert_eq!((missing.code, missing.err.contains("kind: App")), (1, true), "{missing:?}");
    assert!(against(&["[]"], "apps list").await.err.contains("kind: App"));
}

#[tokio::test]
async fn contexts_are_kept_and_their_tokens_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.json").display().to_string();
    let run = async |arguments: &str, stdin: &'static [u8]| {
        let arguments = format!("--context-file {file} context {arguments}");
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let mut invocation = super::Invocation::new("http://127.0.0.1:1", &arguments);
        invocation.stdin = stdin;
        invocation.run().await
    };
    assert!(run("list", b"").await.err.contains("there are no contexts"));
    let added = run("add staging https://staging.example.com --token-stdin", b"hush-hush\n").await;
    assert_eq!((added.code, added.out.contains("current")), (0, true), "{added:?}");
    assert_eq!(run("add local 127.0.0.1:3501 --token-variable LOCAL", b"").await.code, 0);
    let again = run("add local h:1", b"").await;
    assert_eq!((again.code, again.err.contains("context remove local")), (1, true), "{again:?}");
    assert_eq!(run("add a/b h:1", b"").await.code, 2);
    let mut said = String::new();
    for arguments in ["list", "list -o json", "show", "show staging -o json", "show local"] {
        let outcome = run(arguments, b"").await;
        assert_eq!(outcome.code, 0, "{outcome:?}");
        said.push_str(&outcome.out);
        said.push_str(&outcome.err);
    }
    assert!(said.contains("staging.example.com") && said.contains("in the variable LOCAL"), "{said}");
    assert!(!said.contains("hush"), "{said}");
    assert_eq!(run("use local", b"").await.code, 0);
    assert!(run("show", b"").await.out.contains("127.0.0.1:3501"));
    let unknown = run("use lokal", b"").await;
    assert_eq!((unknown.code, unknown.err.contains("there are: local, staging")), (1, true), "{unknown:?}");
    assert_eq!(run("remove local", b"").await.code, 0);
    assert_eq!(run("show", b"").await.code, 2);
    assert!(std::fs::read_to_string(&file).unwrap().contains("hush-hush"), "it is kept in the file alone");
}

#[tokio::test]
async fn the_token_of_a_context_goes_to_its_server() {
    let server = Server::new([Answer::json(200, r#"{"topics":[]}"#), Answer::json(200, r#"{"topics":[]}"#)]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.json");
    let token = folder.path().join("token");
    std::fs::write(&token, "from-file\n").unwrap();
    let text = serde_json::json!({ "contexts": { "here": { "server": server.url, "token": { "file": token } } } });
    std::fs::write(&file, text.to_string()).unwrap();
    let arguments = format!("tidegate --context-file {} --context here topics list", file.display());
    let arguments = <crate::cli::Arguments as clap::Parser>::try_parse_from(arguments.split_whitespace()).unwrap();
    let resolved = crate::cli::contexts::resolve(&arguments.globals, &|_| None).unwrap();
    assert_eq!(resolved.server().to_string(), server.url);
    assert_eq!(resolved.token.unwrap().authorization(), "Bearer from-file");
    // Named by hand, the same server is not the context's.
    invoke(&server.url, &["--context-file", &file.display().to_string(), "topics", "list"]).await;
    assert!(!server.requests()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn doctor_finds_faults_and_says_how_to_mend_them() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    let data = folder.path().join("data").display().to_string();
    let resources = folder.path().join("resources");
    std::fs::create_dir(&resources).unwrap();
    let gateway = |data: &str| {
        format!(
            "apiVersion: tidegate.dev/v1\nkind: Gateway\nspec:\n  listeners: {{http: '127.0.0.1:0'}}\n  backbone: embedded:{data}\n  \
             resources: {}\n  limits: {{connections: 100}}\n",
            resources.display()
        )
    };
    let run = async |answers: &[&str]| {
        let config = folder.path().join("g.yaml").display().to_string();
        against(answers, &format!("doctor -o json --config {config}")).await
    };
    let verdict = |outcome: &Outcome, what: &str| -> (String, String) {
        let mut findings = outcome.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let found = findings.rfind(|finding| finding["what"] == what);
        let found = found.unwrap_or_else(|| panic!("nothing about {what}: {outcome:?}"));
        let text = |member: &str| found[member].as_str().unwrap_or_default().to_owned();
        (text("verdict"), text("mend"))
    };
    let version = CLUSTER.replace("9.9.9", env!("CARGO_PKG_VERSION"));
    write("g.yaml", gateway(&data));
    let good = run(&[&version]).await;
    assert_eq!(good.code, 0, "{good:?}");
    for what in ["config", "backbone", "port", "data", "resources", "files", "clock", "server"] {
        assert_eq!(verdict(&good, what).0, "ok", "{what}: {good:?}");
    }
    assert!(!std::path::Path::new(&data).exists(), "it only looks");
    let bindings = r#"[{"name":"in","broker":"legacy","direction":"input","queue":"orders","topic":"orders","status":{"state":"waiting",
        "reason":"user \"mesh\" lacks the right `read` on the queue orders"}},
        {"name":"out","broker":"legacy","direction":"output","exchange":"orders","routingKey":"k","status":{"state":"running"}}]"#;
    let broker =
        "{apiVersion: tidegate.dev/v1, kind: Broker, metadata: {name: legacy}, spec: {url: 'amqp://127.0.0.1:1'}}\n";
    std::fs::write(resources.join("b.yaml"), broker).unwrap();
    let seen = run(&[&version, bindings]).await;
    assert_eq!(seen.code, 0, "a gateway runs without: {seen:?}");
    let found = |verdict: &str, words: &str| {
        seen.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).any(|finding| {
            finding["verdict"] == verdict && finding["found"].as_str().is_some_and(|found| found.contains(words))
        })
    };
    for (verdict, words) in [
        ("warn", "in: input of queue orders on legacy, waiting (user \"mesh\" lacks the right `read`"),
        ("ok", "out: output of exchange orders on legacy, running"),
        ("warn", "legacy: 127.0.0.1:1 cannot be reached"),
    ] {
        assert!(found(verdict, words), "{words}: {seen:?}");
    }
    std::fs::remove_file(resources.join("b.yaml")).unwrap();
    assert_eq!(verdict(&run(&[CLUSTER]).await, "server").0, "warn", "another version");

    std::fs::write(resources.join("s.yaml"), "kind: Subscripton\n").unwrap();
    let faulty = run(&[&version]).await;
    assert_eq!((faulty.code, verdict(&faulty, "resources").0.as_str()), (1, "fail"), "{faulty:?}");
    assert!(verdict(&faulty, "resources").1.contains("tidegate check"));
    write("g.yaml", "kind: Gateway\nspec: {listenres: 1}\n".to_owned());
    let faulty = run(&[&version]).await;
    assert_eq!((faulty.code, verdict(&faulty, "config").0.as_str()), (1, "fail"), "{faulty:?}");
    write("g.yaml", gateway("/proc/none"));
    let faulty = run(&[&version]).await;
    assert_eq!((faulty.code, verdict(&faulty, "data").0.as_str()), (1, "fail"), "{faulty:?}");

    std::fs::remove_file(resources.join("s.yaml")).unwrap();
    write("g.yaml", gateway(&data));
    let config = folder.path().join("g.yaml").display().to_string();
    let down = invoke("http://127.0.0.1:1", &["doctor", "--config", &config]).await;
    assert_eq!(down.code, 1);
    assert!(down.out.contains("tidegate dev"), "{down:?}");
}
