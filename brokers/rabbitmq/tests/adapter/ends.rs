//! Ends of streams, and the list of logs, on a cluster one of whose nodes lacks what the others have.
#![expect(clippy::print_stdout, reason = "the figures of a run show that it did something")]

use tidegate_backbone::ErrorKind;

use crate::*;

/// Ends that are asked for.
const ENDS: usize = 20;

fn url(hosts: &[String]) -> String {
    format!("amqp://{}", hosts.join(","))
}

/// Suspends or resumes what sends a stream to the first node, which goes on to answer for its replica.
async fn sender(server: &Broker, stream: &str, act: &str) {
    let words = format!(
        r#"{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{stream}">>)),
        #{{name := Name}} = amqqueue:get_type_state(Queue),
        {{ok, Replica}} = rabbit_stream_coordinator:local_pid(Name),
        {{links, Links}} = process_info(Replica, links),
        [Sender] = [Link || Link <- Links, is_pid(Link), node(Link) =/= node()],
        sys:{act}(Sender)."#
    );
    server.control(&["eval", &words]).await;
}

async fn end(broker: &RabbitBroker, log: &LogId) -> u64 {
    let deadline = tokio::time::Instant::now() + HANG;
    loop {
        match broker.info(log).await {
            Ok(info) => return info.end.0,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An end is never before what was confirmed when it was asked for, though the node that is read from lacks it.
async fn behind(server: &Broker, hosts: &[String]) {
    let ((writer, _one), (broker, _two)) = (open(&url(&hosts[1..]), "behind").await, open(&url(hosts), "behind").await);
    let orders = topic(&writer, "orders").await;
    appended(&writer, &orders, "first").await;
    sender(server, "behind.orders-0", "suspend").await;
    let (control, _three) = open(&url(&hosts[..1]), "behind").await;
    let mut short = 0;
    for number in 1..=ENDS {
        appended(&writer, &orders, &number.to_string()).await;
        let confirmed = number as u64 + 1;
        assert!(end(&broker, &orders).await >= confirmed, "the end is before what is confirmed");
        short += usize::from(end(&control, &orders).await < confirmed);
    }
    println!("of {ENDS} ends, {short} are before what was confirmed where one node alone is asked");
    assert!(short > 0, "the control: one node lacks nothing, so that it shows nothing");
    sender(server, "behind.orders-0", "resume").await;
    // Whoever has read up to the end has read them.
    assert!(read(&broker, &orders, Position::ZERO).await.len() > ENDS);
    for broker in [writer, broker, control] {
        broker.close().await;
    }
}

/// A gateway does not begin with a list of logs that is shorter than that of others.
async fn listed(server: &Broker, hosts: &[String]) {
    let (writer, environment) = open(&url(&hosts[1..]), "listed").await;
    let slot = |epoch| LogId::Slot { slot: 3, epoch, suffix: 0 };
    sender(server, "ns.listed~logs", "suspend").await;
    let all: Vec<LogId> = (0..3).map(slot).collect();
    for log in &all {
        writer.create(LogSpec::Single(log.clone())).await.expect("it can be created");
    }
    let (control, _control) = open(&url(&hosts[..1]), "listed").await;
    assert_eq!(control.generations(3).await.expect("it answers"), [], "the control: the node does not know them");
    let every = url(hosts);
    let opening = environment.spawn(async move {
        let environment = Environment::system();
        let deadline = tokio::time::Instant::now() + HANG;
        loop {
            match RabbitBroker::open(options(&every, "listed"), &environment).await {
                Ok(broker) => {
                    let told = broker.generations(3).await;
                    broker.close().await;
                    return told;
                }
                Err(error) => {
                    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
                    assert!(tokio::time::Instant::now() < deadline, "{error}");
                }
            }
        }
    });
    sender(server, "ns.listed~logs", "resume").await;
    assert_eq!(opening.await.expect("it opens").expect("it answers"), all);
    for broker in [writer, control] {
        broker.close().await;
    }
}

/// Where no more than half of the nodes answer nothing is taken for the end.
async fn alone(hosts: &[String]) {
    let nobody = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.local_addr().expect("it has an address").to_string()
    };
    let named = [hosts[0].clone(), nobody(), nobody()];
    let error = RabbitBroker::open(options(&url(&named), "alone"), &Environment::system()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
    let told = error.to_string();
    let missing: Vec<&String> = named.iter().filter(|host| told.contains(*host)).collect();
    assert_eq!(missing, [&named[1], &named[2]], "it says which: {told}");
    assert!(told.contains("2 must"), "{told}");
    // The control: most do.
    let (broker, _environment) = open(&url(&[hosts[0].clone(), hosts[1].clone(), nobody()]), "alone").await;
    let orders = topic(&broker, "orders").await;
    appended(&broker, &orders, "first").await;
    assert_eq!(end(&broker, &orders).await, 1);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_and_lists_are_those_of_most_nodes() {
    let Some(server) = Broker::start("rabbitmq3").await.filter(Broker::is_ours) else { return };
    let hosts = server.addresses();
    behind(&server, &hosts).await;
    listed(&server, &hosts).await;
    alone(&hosts).await;
}
