//! How registries are reached: mirrors, which are insecure, certificates, credentials, patience.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ukc_fetch::{Cancel, Retries, Trust, is_loopback};

use super::CredentialFiles;
use crate::reference::DEFAULT_REGISTRY;

/// Where docker and podman keep certificates of single registries (docker, "Verify repository client with certificates"; containers-certs.d(5)).
const CERTIFICATE_DIRS: [&str; 2] = ["/etc/docker/certs.d", "/etc/containers/certs.d"];

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Places to ask before a registry, by its name: `host[:port][/prefix]`, with `http://` in front for one without TLS.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries that may do without TLS, or without a certificate that is trusted: `host[:port]`.
    pub insecure: Vec<String>,
    /// Directories with a folder for each registry, in it `*.crt` of authorities and `NAME.cert` with `NAME.key`.
    pub certificate_dirs: Vec<PathBuf>,
    /// Further authorities of single registries, by their names.
    pub authorities: BTreeMap<String, Vec<PathBuf>>,
    /// Users and passwords.
    pub credentials: CredentialFiles,
    /// See [`Retries`].
    pub retries: Retries,
    /// Whether the work is to end.
    pub cancel: Cancel,
    /// Whether tags are looked up again though they are known.
    pub always_resolve: bool,
    /// Whether layers are kept compressed, too, because an output will want them so.
    pub keeps_blobs: bool,
    /// Whether the network may not be used.
    pub is_offline: bool,
}

impl Settings {
    /// Returns the places and files that docker and podman use. `own_credentials` is a file of our own.
    pub fn from_environment(own_credentials: Option<PathBuf>) -> Settings {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let mut certificate_dirs: Vec<PathBuf> = CERTIFICATE_DIRS.iter().map(PathBuf::from).collect();
        certificate_dirs.extend(home.iter().flat_map(|h| [h.join(".docker/certs.d"), h.join(".config/containers/certs.d")]));
        Settings { certificate_dirs, credentials: CredentialFiles::from_environment(own_credentials), ..Settings::default() }
    }

    /// Adds a mirror as the command line gives it: `REGISTRY=PLACE`, or a place alone, which then stands for docker.io.
    ///
    /// # Errors
    /// A sentence.
    pub fn add_mirror(&mut self, text: &str) -> Result<(), String> {
        let (registry, place) = text.split_once('=').unwrap_or((DEFAULT_REGISTRY, text));
        let place = place.trim_end_matches('/');
        let host = ukc_fetch::host_of(place);
        let has_other_scheme = place.contains("://") && !place.starts_with("http://") && !place.starts_with("https://");
        if registry.is_empty() || registry.contains('/') || host.is_empty() || has_other_scheme {
            return Err(format!("`{text}` should have the form [REGISTRY=][http://]HOST[:PORT][/PREFIX]"));
        }
        self.mirrors.entry(registry.to_owned()).or_default().push(place.to_owned());
        Ok(())
    }

    /// Whether a registry may be reached without TLS: because it is called so, or because it is this machine.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        let name = host.split(':').next().unwrap_or_default();
        is_loopback(host) || self.insecure.iter().any(|i| i == host || i == name)
    }

    /// Returns what certificates of a registry must lead to. One that is insecure by name may have any, unless somebody gave an authority just for it.
    pub(crate) fn trust(&self, host: &str) -> Trust {
        let mut trust = Trust::default();
        for dir in self.certificate_dirs.iter().map(|d| d.join(host)) {
            let mut names: Vec<PathBuf> = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
            names.sort();
            let is = |path: &Path, extension: &str| path.extension().is_some_and(|e| e == extension);
            trust.authorities.extend(names.iter().filter(|p| is(p, "crt")).cloned());
            let pair =
                |certificate: &PathBuf| Some((certificate.clone(), Some(certificate.with_extension("key")).filter(|k| k.is_file())?));
            trust.identity = trust.identity.or_else(|| names.iter().filter(|p| is(p, "cert")).find_map(pair));
        }
        trust.authorities.extend(self.authorities.get(host).into_iter().flatten().cloned());
        trust.accept_any = trust.authorities.is_empty() && self.is_insecure(host);
        trust
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors() {
        let mut settings = Settings::default();
        for good in ["http://localhost:5000", "docker.io=mirror.gcr.io", "quay.io=https://m.example/quay/"] {
            settings.add_mirror(good).unwrap();
        }
        assert_eq!(settings.mirrors["docker.io"], ["http://localhost:5000", "mirror.gcr.io"]);
        assert_eq!(settings.mirrors["quay.io"], ["https://m.example/quay"]);
        for bad in ["", "=x", "a/b=c", "a=", "a=ftp://x"] {
            assert!(settings.add_mirror(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn certificates_of_one_registry() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("reg.example:5000");
        std::fs::create_dir(&own).unwrap();
        for name in ["ca.crt", "client.cert", "client.key", "other.cert", "readme"] {
            std::fs::write(own.join(name), "x").unwrap();
        }
        let settings =
            Settings { certificate_dirs: vec![dir.path().to_owned()], insecure: vec!["plain.example".into()], ..Settings::default() };
        let trust = settings.trust("reg.example:5000");
        assert_eq!(trust.authorities, [own.join("ca.crt")]);
        assert_eq!(trust.identity, Some((own.join("client.cert"), own.join("client.key"))));
        assert_eq!(settings.trust("reg.example").authorities, Vec::<PathBuf>::new());
        assert!(
            settings.is_insecure("plain.example:5000") && settings.is_insecure("127.0.0.1:5000") && !settings.is_insecure("reg.example")
        );
    }
}
