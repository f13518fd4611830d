//! Requests that no HTTP library would send: half of one, a slow one, a broken one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::PATIENCE;

/// Opens a connection and writes these bytes.
///
/// # Panics
///
/// Where the gateway does not accept.
pub async fn open(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the gateway accepts connections");
    stream.set_nodelay(true).expect("a TCP option");
    stream.write_all(bytes).await.expect("a fresh connection takes bytes");
    stream
}

/// Reads until the other side closes, and gives what came.
///
/// # Panics
///
/// Where it does not close.
pub async fn read_to_close(mut stream: TcpStream) -> String {
    let mut received = Vec::new();
    let reading = stream.read_to_end(&mut received);
    match tokio::time::timeout(PATIENCE, reading).await {
        // A reset is a close as well; what came before it counts.
        Ok(_) => String::from_utf8_lossy(&received).into_owned(),
        Err(_) => panic!("the gateway holds the connection open after {PATIENCE:?}"),
    }
}

/// Sends a byte at each interval until the gateway closes; gives the answer and how long it took.
///
/// # Panics
///
/// Where the gateway lets it go on.
pub async fn trickle(stream: TcpStream, interval: Duration) -> (String, Duration) {
    let started = Instant::now();
    let (mut from, mut to) = stream.into_split();
    let writing = async {
        while to.write_all(b"x").await.is_ok() {
            tokio::time::sleep(interval).await;
        }
        std::future::pending::<()>().await;
    };
    let mut received = Vec::new();
    let reading = from.read_to_end(&mut received);
    tokio::select! {
        _ = reading => {}
        () = writing => {}
        () = tokio::time::sleep(PATIENCE) => panic!("the gateway reads a trickle for more than {PATIENCE:?}"),
    }
    (String::from_utf8_lossy(&received).into_owned(), started.elapsed())
}
