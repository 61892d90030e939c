//! Why a registry did not do what it was asked for.

use std::fmt;

/// Trouble with a registry, with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryError {
    /// The registry's name, as `docker.io`.
    pub registry: String,
    /// What was asked for: `the image debian:13`, `the layer sha256:…`.
    pub what: String,
    /// What came of it.
    pub cause: Cause,
}

/// See [`RegistryError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// 404, and what the server says about it.
    NotFound(String),
    /// 401 or 403.
    Denied { status: u16, message: String, with_credentials: bool },
    /// No connection.
    Unreachable { why: String, is_tls: bool },
    /// 429 to the end of our patience.
    Busy(String),
    /// 5xx to the end of our patience.
    Failing { status: u16, message: String },
    /// The connection breaks again and again.
    Cut(String),
    /// Something that is not the protocol.
    Unexpected(String),
    /// Credentials cannot be got.
    Credentials(String),
    /// The user ended it.
    Interrupted,
    /// It was to be done without the network, and is not there.
    Offline,
}

impl RegistryError {
    /// All names of diagnostics that [`RegistryError::name`] gives, except for an interruption.
    pub const NAMES: [&'static str; 8] = [
        "image-not-found",
        "access-denied",
        "registry-unreachable",
        "registry-busy",
        "registry-failed",
        "registry-misbehaves",
        "no-credentials",
        "offline",
    ];

    /// Returns the stable name that a diagnostic about this carries.
    pub fn name(&self) -> &'static str {
        match &self.cause {
            Cause::NotFound(_) => "image-not-found",
            Cause::Denied { .. } => "access-denied",
            Cause::Unreachable { .. } | Cause::Cut(_) => "registry-unreachable",
            Cause::Busy(_) => "registry-busy",
            Cause::Failing { .. } => "registry-failed",
            Cause::Unexpected(_) => "registry-misbehaves",
            Cause::Credentials(_) => "no-credentials",
            Cause::Interrupted => "interrupted",
            Cause::Offline => "offline",
        }
    }

    /// Returns one useful next step.
    pub fn help(&self) -> Option<String> {
        let registry = &self.registry;
        Some(match &self.cause {
            Cause::NotFound(_) => "check the name and the tag; a name without a registry is looked up at docker.io".to_owned(),
            Cause::Denied { with_credentials: false, .. } => {
                format!("check the name; if the image is private, log in with `docker login {registry}` or `podman login {registry}`")
            }
            Cause::Denied { with_credentials: true, .. } => {
                format!("the credentials for {registry} do not allow this: log in again with `docker login {registry}` or `podman login {registry}`, or ask for access")
            }
            Cause::Unreachable { is_tls: true, .. } => {
                format!(
                    "put the certificate of a private authority into /etc/docker/certs.d/{registry}/ca.crt; \
                     `--insecure-registry {registry}` does without certificates"
                )
            }
            Cause::Unreachable { .. } | Cause::Cut(_) => {
                "check the registry's name and the network; HTTPS_PROXY and NO_PROXY are honoured, and `--registry-mirror` names other places"
                    .to_owned()
            }
            Cause::Busy(_) => format!("wait, log in with `docker login {registry}` for a higher limit, or use a mirror (`--registry-mirror`)"),
            Cause::Failing { .. } => "the fault is the registry's: try again later, or use a mirror (`--registry-mirror`)".to_owned(),
            Cause::Offline => "build once without `--offline`, or give the image with `--build-context NAME=oci-layout://DIR`".to_owned(),
            Cause::Unexpected(_) | Cause::Credentials(_) | Cause::Interrupted => return None,
        })
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RegistryError { registry, what, cause } = self;
        let said = |message: &str| if message.is_empty() { String::new() } else { format!(" ({message})") };
        match cause {
            Cause::NotFound(message) => write!(f, "{registry} does not have {what}{}", said(message)),
            Cause::Denied { status, message, .. } => {
                // docker.io answers so for names that do not exist, too.
                write!(f, "{registry} denies access to {what}: status {status}{}", said(message))
            }
            Cause::Unreachable { why, .. } => write!(f, "cannot reach {registry} for {what}: {why}"),
            Cause::Busy(message) => write!(f, "{registry} is asked too often, and does not give {what}: status 429{}", said(message)),
            Cause::Failing { status, message } => write!(f, "{registry} fails to give {what}: status {status}{}", said(message)),
            Cause::Cut(why) => write!(f, "{registry} breaks off when asked for {what}: {why}"),
            Cause::Unexpected(why) => write!(f, "{registry} answers strangely when asked for {what}: {why}"),
            Cause::Credentials(why) => write!(f, "no credentials for {registry}: {why}"),
            Cause::Interrupted => write!(f, "interrupted while waiting for {what}"),
            Cause::Offline => write!(f, "{what} was never pulled, and `--offline` allows no network"),
        }
    }
}

impl std::error::Error for RegistryError {}

/// Returns what a registry's error document says, else the start of the text (OCI distribution-spec, "Error Codes").
pub(crate) fn message_of(body: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Document {
        #[serde(default)]
        errors: Vec<Entry>,
        // Token servers and others say it this way.
        #[serde(default)]
        details: String,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let clean = |text: &str| {
        let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
        line.chars().filter(|c| !c.is_control()).take(200).collect::<String>()
    };
    match serde_json::from_str::<Document>(body) {
        Ok(document) if !document.errors.is_empty() => {
            let entries = document.errors.iter().map(|e| if e.message.is_empty() { clean(&e.code) } else { clean(&e.message) });
            entries.collect::<Vec<_>>().join("; ")
        }
        Ok(document) => clean(&document.details),
        // A web page says nothing that helps.
        Err(_) if body.trim_start().starts_with('<') => String::new(),
        Err(_) => clean(body),
    }
}

#[cfg(test)]
mod tests {
    use super::message_of;

    #[test]
    fn messages() {
        for (body, expected) in [
            (r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#, "manifest unknown"),
            (r#"{"errors":[{"code":"DENIED"},{"message":"x"}]}"#, "DENIED; x"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            ("<html>oops</html>", ""),
            ("\n slow down \x1b[31m\nmore", "slow down [31m"),
            ("", ""),
        ] {
            assert_eq!(message_of(body), expected);
        }
    }
}
