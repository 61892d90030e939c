//! Which certificates a server's must lead to.
//!
//! The machine's own list is read from where OpenSSL and Go look for it (Go, `crypto/x509/root_linux.go`); `SSL_CERT_FILE` replaces it, as with both of
//! them. Where there is none, the list of Mozilla that is part of this program serves. A private authority is added, never put in their place.

use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Where distributions keep the list.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is trusted beyond the machine's own list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Files with further authorities, in PEM.
    pub authorities: Vec<PathBuf>,
    /// Certificate and key that we show, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Take any certificate: for registries that are called insecure by name.
    pub accept_any: bool,
}

impl Trust {
    /// Reads the files.
    pub(crate) fn config(&self) -> Result<TlsConfig, String> {
        let mut builder = TlsConfig::builder().provider(TlsProvider::Rustls).disable_verification(self.accept_any);
        if !self.accept_any {
            let mut certificates = machine();
            if certificates.is_empty() && self.authorities.is_empty() {
                builder = builder.root_certs(RootCerts::WebPki);
            } else {
                for path in &self.authorities {
                    certificates.extend(read(path)?);
                }
                builder = builder.root_certs(RootCerts::new_with_certs(&certificates));
            }
        }
        if let Some((certificate, key)) = &self.identity {
            let chain = read(certificate)?;
            let pem = std::fs::read(key).map_err(|e| format!("cannot read the key `{}`: {e}", key.display()))?;
            let key = PrivateKey::from_pem(&pem).map_err(|e| format!("the key `{}` is broken: {e}", key.display()))?;
            builder = builder.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        Ok(builder.build())
    }
}

/// Returns the machine's list. A file that cannot be read counts as missing: others may do.
fn machine() -> Vec<Certificate<'static>> {
    let chosen = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from).filter(|p| p.is_file());
    let found = chosen.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|p| p.is_file()));
    found.and_then(|path| read(&path).ok()).unwrap_or_default()
}

fn read(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|e| format!("cannot read the certificates `{shown}`: {e}"))?;
    let mut out = vec![];
    for item in parse_pem(&pem) {
        let item = item.map_err(|e| format!("the certificates `{shown}` are broken: {e}"))?;
        if let PemItem::Certificate(certificate) = item {
            out.push(certificate);
        }
    }
    if out.is_empty() { Err(format!("the file `{shown}` has no certificate")) } else { Ok(out) }
}
