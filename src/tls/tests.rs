//! A TLS server for the tests of every HTTPS client, and tests of PEM parsing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

/// The certificate of a new authority, in PEM.
pub(crate) fn authority() -> String {
    let key = KeyPair::generate().unwrap();
    CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem()
}

/// A server with a certificate for one name, signed by its own authority.
pub(crate) struct Server {
    pub address: SocketAddr,
    /// The authority's certificate, in PEM.
    pub authority: String,
    /// The requests received, headers and bodies.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers every request with these bytes.
    pub fn start(name: &str, answer: &'static str) -> Server {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let shared = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // The client reports a failed handshake.
                _ = serve(stream, &config, &shared, answer);
            }
        });
        Server { address, authority, asked }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    config: &Arc<rustls::ServerConfig>,
    asked: &Mutex<Vec<String>>,
    answer: &str,
) -> std::io::Result<()> {
    let connection = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
    let mut reader = BufReader::new(rustls::StreamOwned::new(connection, stream));
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
    }
    let length = request.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    reader.by_ref().take(length.unwrap_or(0)).read_to_string(&mut request)?;
    asked.lock().unwrap().push(request);
    reader.get_mut().write_all(answer.as_bytes())?;
    reader.get_mut().conn.send_close_notify();
    reader.get_mut().flush()
}

#[test]
fn a_pem_text_must_hold_a_certificate() {
    let authority = authority();
    assert_eq!(Trust::of_pem(&authority.repeat(2)).unwrap().0.len(), 2);
    assert_eq!(Trust::of_pem("no certificate\n").unwrap_err(), TrustError::Empty);
    let key = KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(Trust::of_pem(&key).unwrap_err(), TrustError::Empty);
    let broken = authority.replace("-----END", "----END");
    assert!(Trust::of_pem(&broken).is_err(), "{broken}");
}
