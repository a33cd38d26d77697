//! Whom HTTPS trusts, for every client of ours that speaks it: webhook, schema registry, token endpoint. (The connections to
//! the brokers are librdkafka's, and so are their certificates.)

use std::sync::Arc;

use rustls::crypto::ring;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Why certificates cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Something that is no certificate.
    #[error("is no PEM ({0}); it must hold certificates, each between BEGIN CERTIFICATE and END CERTIFICATE")]
    Syntax(String),
    /// Nothing at all.
    #[error("holds no certificate; write that of the authority that signed the server's, in PEM")]
    Empty,
}

/// The certificates of authorities that are trusted.
#[derive(Debug, Clone)]
pub struct Trust(Vec<Certificate<'static>>);

impl Trust {
    /// Those of the system; `SSL_CERT_FILE` names others. What cannot be read is logged.
    #[must_use]
    pub fn of_system() -> Trust {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("a trusted certificate cannot be read: {error}");
        }
        if found.certs.is_empty() {
            tracing::warn!(
                "the system trusts no certificates, so nothing over https gets through; install ca-certificates"
            );
        }
        Trust(found.certs.iter().map(|root| Certificate::from_der(root).to_owned()).collect())
    }

    /// Those of a PEM text, and no others.
    ///
    /// # Errors
    /// When it holds none.
    pub fn of_pem(text: &str) -> Result<Trust, TrustError> {
        let mut found = Vec::new();
        for item in parse_pem(text.as_bytes()) {
            match item {
                Ok(PemItem::Certificate(certificate)) => found.push(certificate),
                Ok(_) => {}
                Err(error) => return Err(TrustError::Syntax(error.to_string())),
            }
        }
        if found.is_empty() { Err(TrustError::Empty) } else { Ok(Trust(found)) }
    }

    /// What a client of `ureq` is configured with.
    #[must_use]
    pub fn config(&self) -> TlsConfig {
        TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&self.0))
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .build()
    }
}

#[cfg(test)]
pub(crate) mod tests;
