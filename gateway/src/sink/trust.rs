//! Whose certificates are believed.

use std::fmt;
use std::sync::{Arc, OnceLock};

use hyper_rustls::ConfigBuilderExt as _;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tracing::warn;

use super::{AddressPolicy, Inner, TlsClient, tls_client};

/// The authorities of one target, believed in place of the machine's, with connections of their own: one that was opened
/// under other authorities must not serve this target.
pub struct Trust {
    configuration: ClientConfig,
    /// Made at first use, as those of the machine are.
    any: OnceLock<TlsClient>,
    public: OnceLock<TlsClient>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    /// Believes certificates that one of these (DER) stands behind, and no others. The error says which cannot be one.
    pub fn new(authorities: &[Vec<u8>]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for (index, der) in authorities.iter().enumerate() {
            roots.add(CertificateDer::from(der.as_slice())).map_err(|error| {
                format!("certificate {} of the file cannot be that of an authority: {error}", index + 1)
            })?;
        }
        let configuration = versions().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { configuration, any: OnceLock::new(), public: OnceLock::new() })
    }

    pub(super) fn client(&self, policy: AddressPolicy, inner: &Inner) -> &TlsClient {
        let client = match policy {
            AddressPolicy::Any => &self.any,
            // Only files name certificates, and what files declare may call every address.
            AddressPolicy::PublicOrLoopback | AddressPolicy::PublicOnly => &self.public,
        };
        client.get_or_init(|| tls_client(self.configuration.clone(), policy, inner))
    }
}

fn versions() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both default versions")
}

/// TLS with the machine's own root certificates. Where it has none, only calls over TLS fail, each saying why.
pub(super) fn of_the_machine() -> ClientConfig {
    match versions().with_native_roots() {
        Ok(configuration) => configuration.with_no_client_auth(),
        Err(error) => {
            warn!(%error, "this machine has no root certificates; sinks over https cannot be verified and will fail");
            versions().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, Uri};
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection, Stream};
    use tidegate_backbone::Environment;

    use super::*;
    use crate::sink::{Answer, Failure, Http, Options, Route, Target};

    const AUTHORITY: &str = include_str!("../../../tests/tls/ca.pem");
    const OTHER_AUTHORITY: &str = include_str!("../../../tests/tls/other-ca.pem");
    const CERTIFICATE: &str = include_str!("../../../tests/tls/sink.pem");
    const KEY: &str = include_str!("../../../tests/tls/sink.key");
    /// Only against hanging.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    fn trust(pem: &str) -> Trust {
        let ders: Vec<Vec<u8>> = certificates(pem).iter().map(|der| der.to_vec()).collect();
        Trust::new(&ders).unwrap()
    }

    /// A sink over TLS whose certificate is for `localhost` and 127.0.0.1; it ends with the process.
    fn serve(address: &str) -> SocketAddr {
        let configuration = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates(CERTIFICATE), PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap())
            .unwrap();
        let configuration = Arc::new(configuration);
        let listener = TcpListener::bind((address, 0)).unwrap();
        let bound = listener.local_addr().unwrap();
        let accept = move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Ok(mut connection) = ServerConnection::new(Arc::clone(&configuration)) else { return };
                let mut tls = Stream::new(&mut connection, &mut stream);
                let mut request = Vec::new();
                let mut chunk = [0; 4096];
                // Whoever does not trust the certificate ends the handshake, and the next one is served.
                while !request.ends_with(b"hello") {
                    match tls.read(&mut chunk) {
                        Ok(count) if count > 0 => request.extend_from_slice(&chunk[..count]),
                        _ => break,
                    }
                }
                if request.ends_with(b"hello") {
                    let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
                }
            }
        };
        std::thread::Builder::new().name("tls-sink".to_owned()).spawn(accept).unwrap();
        bound
    }

    fn client() -> Http {
        Http::new(Options::default(), &Environment::system())
    }

    async fn call(http: &Http, host: &str, port: u16, trust: Option<&Trust>) -> Result<Answer, Failure> {
        let uri: Uri = format!("https://{host}:{port}/hook").parse().unwrap();
        let route = Route { uri: &uri, policy: AddressPolicy::Any, trust };
        let call = http.deliver(route, HeaderMap::new(), Bytes::from_static(b"hello"), PATIENCE);
        tokio::time::timeout(PATIENCE, call).await.unwrap()
    }

    #[tokio::test]
    async fn a_private_authority_is_believed_where_it_is_named_and_nowhere_else() {
        let port = serve("127.0.0.1").port();
        let (http, ours) = (client(), trust(AUTHORITY));
        for host in ["127.0.0.1", "localhost"] {
            let answer = call(&http, host, port, Some(&ours)).await.unwrap();
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok"[..]), "{host}");
        }
        for (what, other) in [("the machine's", None), ("another", Some(trust(OTHER_AUTHORITY)))] {
            let failure = call(&http, "127.0.0.1", port, other.as_ref()).await.unwrap_err();
            assert!(
                matches!(&failure, Failure::Unreachable(cause) if cause.contains("certificate")),
                "{what}: {failure}"
            );
        }
        // And afterwards: neither has taken the other's connections.
        assert!(call(&http, "127.0.0.1", port, Some(&ours)).await.is_ok());
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_not_believed() {
        let address = serve("127.0.0.2");
        let failure = call(&client(), "127.0.0.2", address.port(), Some(&trust(AUTHORITY))).await.unwrap_err();
        assert!(matches!(&failure, Failure::Unreachable(cause) if cause.contains("certificate")), "{failure}");
    }

    #[tokio::test]
    async fn a_subscription_names_the_file_of_its_authority() {
        let port = serve("127.0.0.1").port();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), AUTHORITY).unwrap();
        let text = format!(
            "{{apiVersion: tidegate.dev/v1, kind: Subscription, metadata: {{name: s}}, spec: {{topics: [t], \
             sink: 'https://127.0.0.1:{port}/hook', tls: {{ca: ca.pem}}}}}}"
        );
        std::fs::write(folder.path().join("s.yaml"), text).unwrap();
        let resources = tidegate_resources::load(&[folder.path().to_owned()], &|_| None).unwrap();
        let declared = &resources.subscriptions[0];
        let target = Target::declared(&declared.sink, &declared.request).unwrap();
        let tidegate_resources::Sink::Http(sink) = target.sink() else { panic!() };
        let answer = client()
            .deliver(target.route(sink.uri()), HeaderMap::new(), Bytes::from_static(b"hello"), PATIENCE)
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), 200);
        // What is no certificate is told with its place, before anything is sent.
        let reason = Trust::new(&[vec![1, 2, 3]]).unwrap_err();
        assert!(reason.starts_with("certificate 1 of the file"), "{reason}");
    }
}
