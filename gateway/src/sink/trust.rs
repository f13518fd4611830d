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
            AddressPolicy::PublicOnly => &self.public,
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
