//! A certificate authority for tests, with everything in PEM files.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::scratch;

/// An authority, with a directory for the certificates that it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

/// A certificate and its key.
pub struct Signed {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Key and certificate in one file, as Java expects them.
    pub both: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let dir = tempfile::Builder::new().prefix("certificates-").tempdir_in(scratch()).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), dir }
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Signs a certificate for a common name and host names.
    pub fn sign(&self, name: &str, hosts: &[&str]) -> Signed {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let write = |suffix: &str, text: &str| {
            let path = self.dir.path().join(format!("{name}{suffix}.pem"));
            fs::write(&path, text).unwrap();
            path
        };
        let both = write("", &format!("{}{certificate}", key.serialize_pem()));
        Signed { certificate: write("-certificate", &certificate), key: write("-key", &key.serialize_pem()), both }
    }

    /// Writes another file and returns its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}
