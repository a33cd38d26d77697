//! Trusted certificate authorities of our HTTPS clients: webhook, schema registry and token endpoint. (librdkafka
//! handles the connections to the brokers itself, including certificates.)

use std::sync::Arc;

use rustls::crypto::ring;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Why a PEM text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// It is not valid PEM.
    #[error("is not valid PEM ({0}); it must hold certificates, each between BEGIN CERTIFICATE and END CERTIFICATE")]
    Syntax(String),
    /// It contains no certificate.
    #[error("holds no certificate; write that of the authority that signed the server's, in PEM")]
    Empty,
}

/// The trusted certificate authorities.
#[derive(Debug, Clone)]
pub struct Trust(Vec<Certificate<'static>>);

impl Trust {
    /// The authorities of the system, or of `SSL_CERT_FILE`. Logs certificates that cannot be read.
    #[must_use]
    pub fn of_system() -> Trust {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("a trusted certificate cannot be read: {error}");
        }
        if found.certs.is_empty() {
            tracing::warn!(
                "the system has no trusted certificates, so every HTTPS request will fail; install ca-certificates"
            );
        }
        Trust(found.certs.iter().map(|root| Certificate::from_der(root).to_owned()).collect())
    }

    /// Only the authorities in a PEM text.
    ///
    /// # Errors
    /// If it contains none.
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

    /// The TLS configuration for `ureq`.
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
