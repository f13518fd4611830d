use std::net::{Ipv4Addr, SocketAddr};

/// Reads the address of a listener, `ADDR:PORT`; `localhost` is 127.0.0.1, and port 0 is any free one.
///
/// An address other than loopback is refused: whoever reaches it could publish and read everything, until access can be
/// configured. The error has the form `what; how to mend it`.
pub fn parse_listener(text: &str) -> Result<SocketAddr, String> {
    const MEND: &str = "write for example `127.0.0.1:3500`";
    let address = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => text.parse().ok(),
    };
    let address = address.ok_or_else(|| format!("is no address with a port; {MEND}"))?;
    if !address.ip().is_loopback() {
        return Err(
            "can be reached from other machines, which needs `security.access`, and that is not available in this \
             version; listen on 127.0.0.1 and put a proxy before it that knows who may come in"
                .to_owned(),
        );
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_on_loopback() {
        for (text, shown) in [
            ("127.0.0.1:3500", "127.0.0.1:3500"),
            ("127.0.0.2:0", "127.0.0.2:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::1]:3500", "[::1]:3500"),
        ] {
            assert_eq!(parse_listener(text).map(|address| address.to_string()), Ok(shown.to_owned()));
        }
        for (text, what) in [
            ("0.0.0.0:3500", "can be reached"),
            ("[::]:3500", "can be reached"),
            ("192.168.1.5:3500", "can be reached"),
            ("127.0.0.1", "is no address"),
            (":3500", "is no address"),
            ("localhost", "is no address"),
            ("localhost:70000", "is no address"),
            ("example.com:80", "is no address"),
            ("3500", "is no address"),
        ] {
            let error = parse_listener(text).unwrap_err();
            assert!(error.starts_with(what), "{text}: {error}");
        }
    }
}
