//! Without any broker.

use tidegate_backbone::ErrorKind;

use crate::*;

#[tokio::test]
async fn nobody_at_the_address_is_told_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let options = options(&format!("amqp://user:hidden@{address}"), "bare");
    let error = RabbitBroker::open(options, &Environment::system()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
    let told = error.to_string();
    assert!(told.contains(&address.to_string()) && told.contains("check host and port"), "{told}");
    assert!(!told.contains("hidden"), "{told}");
}

#[tokio::test]
async fn whoever_answers_in_another_protocol_is_no_broker() {
    let environment = Environment::system();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = environment.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let opened = RabbitBroker::open(options(&format!("amqp://{address}"), "bare"), &environment);
    let opened = tokio::time::timeout(HANG, opened).await.expect("it does not wait for ever");
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
    answer.abort();
}

#[tokio::test]
async fn names_that_cannot_be_made_are_refused() {
    for (namespace, prefix) in [("", ""), ("a~b", ""), ("ns", "p~"), ("a namespace that is much too long for it", "")] {
        let mut options = options("amqp://localhost", "bare");
        (options.namespace, options.topic_prefix) = (namespace.to_owned(), prefix.to_owned());
        let error = RabbitBroker::open(options, &Environment::system()).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Misconfigured, "{namespace:?} {prefix:?}: {error}");
    }
}
