//! RabbitMQ as the far broker, which is away, takes the gateway's user no more, or has lost the topic: nothing is lost, nothing is
//! used up, it is told, and no other subscription suffers.

use tidegate_conformance::Broker;
use tidegate_tests::client::Client;
use tidegate_tests::cluster::{acknowledged, until};
use tidegate_tests::gateway::{Gateway, Options};
use tidegate_tests::home::Home;
use tidegate_tests::load::Load;
use tidegate_tests::sink::Sink;
use tidegate_tests::subscriptions::{dead_letters, standing};

use super::{
    THERE, arrived, bridge, broker_of, broker_of_ours, credentials, end, goods, make_topics, owner, passwords,
    unavailable,
};

const PRODUCERS: usize = 3;
/// One attempt, so that whatever uses up attempts shows as a dead letter.
const DELIVERY: [&str; 2] = ["order: key", "retry: {maxAttempts: 1}"];

/// A gateway with a bridge over RabbitMQ and back, and a subscription that has nothing to do with it.
struct Stage {
    rabbitmq: Broker,
    home: Home,
    gateway: Gateway,
    /// What came over the bridge and back, and what the other subscription was given.
    over: Sink,
    beside: Sink,
}

impl Stage {
    async fn set() -> Option<Self> {
        let rabbitmq = broker_of_ours("rabbitmq-auth").await?;
        let (_home, owner) = owner(&rabbitmq, &credentials(&rabbitmq, "PASSWORD")).await;
        make_topics(owner.client(), &[THERE]).await;
        let (over, beside, home) = (Sink::accepting().await, Sink::accepting().await, Home::new());
        let resources = bridge("out", "load", "there", &DELIVERY)
            + &bridge("back", "there", "returned", &DELIVERY)
            + &end("end", "returned", &over, &DELIVERY)
            + &end("beside", "load", &beside, &DELIVERY);
        home.write_resource("bridges.yaml", &resources);
        write_broker(&home, &rabbitmq, "PASSWORD");
        let gateway = start(&home).await;
        let stage = Self { rabbitmq, home, gateway, over, beside };
        stage.attach().await;
        Some(stage)
    }

    async fn attach(&self) {
        let body = format!(r#"{{"attach": {{"name": "{THERE}", "broker": "r"}}}}"#);
        until("that the topic is attached", async || {
            let made = self.client().send(http::Method::PUT, "/topics/there", &[], body.clone()).await;
            made.is_ok_and(|answer| matches!(answer.status, 200 | 201))
        })
        .await;
    }

    fn client(&self) -> &Client {
        self.gateway.client()
    }

    /// While a fault lasts: the bridge waits, it is told why, in these words among others, and nothing else is touched.
    async fn suffers(&self, what: &str, words: &str) {
        let client = self.client();
        until(&format!("{what}: that the bridge waits"), async || standing(client, "out").await == "unreachable").await;
        until(&format!("{what}: that the topic says {words:?}"), async || {
            unavailable(client, "there").await.is_some_and(|told| told.contains(words))
        })
        .await;
        arrived(&self.beside, self.beside.count() + 50).await;
        assert_ne!(standing(client, "beside").await, "unreachable");
        assert_eq!(client.get("/readyz").await.unwrap().status, 200, "{what}");
        println!("{what}: {:?}", unavailable(client, "there").await);
    }

    /// That what is on the broker is not what was read there.
    async fn tells_the_damage(&self) {
        until("that the loss is told", async || {
            let shown = self.client().get("/topics/there").await.unwrap().expect(200).json();
            shown["damaged"].as_str().is_some_and(|damaged| damaged.contains("attach it again"))
        })
        .await;
    }

    /// After it: what waited goes on by itself.
    async fn recovers(&self, what: &str) {
        arrived(&self.over, self.over.count() + 50).await;
        until(&format!("{what}: that the bridge is well"), async || {
            standing(self.client(), "out").await != "unreachable"
        })
        .await;
    }
}

async fn start(home: &Home) -> Gateway {
    let options = Options { variables: passwords(), ..Options::default() };
    home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"))
}

fn write_broker(home: &Home, broker: &Broker, password: &str) {
    home.write_resource("broker.yaml", &broker_of("r", broker.url(), &credentials(broker, password)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rabbitmq_that_refuses_or_is_away_costs_no_attempt_and_touches_nothing_else() {
    let Some(mut stage) = Stage::set().await else { return };
    let load = Load::of("load", PRODUCERS, goods::message);
    let running = load.begin(stage.client());
    arrived(&stage.over, 50).await;

    stage.rabbitmq.kill(None).await;
    stage.suffers("killed", "cannot be reached").await;
    stage.rabbitmq.restart(None).await;
    stage.recovers("killed").await;

    stage.rabbitmq.admit(false).await;
    stage.suffers("its user is revoked", "password").await;
    stage.rabbitmq.admit(true).await;
    stage.recovers("its user is revoked").await;

    for (variable, what, words) in
        [("WRONG_PASSWORD", "a wrong password", "password"), ("GUEST", "a user without permissions", "guest")]
    {
        write_broker(&stage.home, &stage.rabbitmq, variable);
        stage.suffers(what, words).await;
        write_broker(&stage.home, &stage.rabbitmq, "PASSWORD");
        stage.recovers(what).await;
    }

    let counts = running.finish().await;
    assert_eq!((counts.unanswered, counts.put_off), (0, 0), "who publishes here waits for no other broker");
    let everything = acknowledged(&load.acknowledged());
    let deliveries = stage.over.wait_for_ids(&everything).await;
    let verdict = goods::judge(&load.acknowledged(), &deliveries, "2");
    println!("{verdict}");
    verdict.assert_sound();

    // The topic is deleted by its owner: what was there is gone with it, and here all of it is home already.
    let (_home, owner) = owner(&stage.rabbitmq, &credentials(&stage.rabbitmq, "PASSWORD")).await;
    owner.client().send(http::Method::DELETE, &format!("/topics/{THERE}"), &[], "").await.unwrap().expect(204);
    let running = load.begin(stage.client());
    stage.suffers("its topic is deleted", "there is no topic there").await;
    // The one that is made anew is written to, but not read as if it were the one that was.
    make_topics(owner.client(), &[THERE]).await;
    until("that the bridge goes on", async || standing(stage.client(), "out").await != "unreachable").await;
    running.finish().await;
    stage.tells_the_damage().await;
    // Whoever comes next finds it as well, and its slot's other partitions are delivered.
    assert!(stage.gateway.terminate().await.success());
    stage.gateway = start(&stage.home).await;
    stage.tells_the_damage().await;
    let running = load.begin(stage.client());
    arrived(&stage.beside, stage.beside.count() + 50).await;
    running.finish().await;
    until("that all is over the bridge", async || {
        let shown = stage.client().get("/subscriptions/out").await.unwrap().expect(200).json();
        ["behind", "queued", "inFlight"].iter().all(|count| shown["status"][count] == 0)
    })
    .await;
    stage.client().send(http::Method::DELETE, "/topics/there", &[], "").await.unwrap().expect(204);
    stage.attach().await;
    let deliveries = stage.over.wait_for_ids(&acknowledged(&load.acknowledged())).await;
    goods::judge(&load.acknowledged(), &deliveries, "2").assert_sound();

    for name in ["out", "back", "end", "beside"] {
        assert!(dead_letters(stage.client(), name).await.is_empty(), "no fault of a broker is one of events: {name}");
    }
    let log = stage.gateway.stderr();
    assert!(!log.contains("-secret"), "a password is shown: {log}");
}
