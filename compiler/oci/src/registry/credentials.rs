//! Credentials, from the files and helpers of docker and podman (docker, "docker login": config.json; containers-auth.json(5)).
//!
//! ```text
//! {"auths": {"ghcr.io": {"auth": "<base64 of user:password>"}}, "credHelpers": {"gcr.io": "gcloud"}, "credsStore": "secretservice"}
//! ```
//!
//! A helper is a program `docker-credential-NAME` with the verbs `get`, `store` and `erase`, which take a server's name, or a document, on standard
//! input. The user's files are read, never written: what is kept for ukc alone is in a file of our own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::base64::{decode, encode};

/// The key of docker.io in these files.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a registry knows somebody by.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User and password, or user and access token.
    Password { user: String, password: String },
    /// A refresh token, which a token server takes (docker: `identitytoken`).
    Identity(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A password must not get into a log.
        match self {
            Credential::Password { user, .. } => write!(f, "Password({user})"),
            Credential::Identity(_) => f.write_str("Identity"),
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers", skip_serializing_if = "BTreeMap::is_empty")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore", skip_serializing_if = "Option::is_none")]
    store: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(default, rename = "identitytoken", skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default, rename = "ServerURL")]
    server: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Where credentials are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// A file of our own, in the form of docker's.
    pub own: Option<PathBuf>,
    /// Further ones, in the order in which they are asked.
    pub others: Vec<PathBuf>,
}

impl CredentialFiles {
    /// Returns the places that docker and podman use, ours first. `own` is a file of our own.
    pub fn from_environment(own: Option<PathBuf>) -> CredentialFiles {
        let dir = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| !p.as_os_str().is_empty());
        let home = dir("HOME");
        let below_home = |rest: &str| home.as_ref().map(|h| h.join(rest));
        let docker = dir("DOCKER_CONFIG").map(|d| d.join("config.json")).or_else(|| below_home(".docker/config.json"));
        let others = [
            dir("REGISTRY_AUTH_FILE"),
            docker,
            dir("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json")),
            below_home(".config/containers/auth.json"),
        ];
        CredentialFiles { own, others: others.into_iter().flatten().collect() }
    }

    /// Returns the credentials for a repository of a registry, if there are any.
    ///
    /// # Errors
    /// A sentence about a file that is broken, or a helper that fails.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>, String> {
        for path in self.own.iter().chain(&self.others) {
            let Some(file) = read(path)? else { continue };
            if let Some(found) = file.find(registry, repository).map_err(|why| format!("{why} (`{}`)", path.display()))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps credentials, and returns where: with the helper that the user's files name for the registry, else in our own file.
    ///
    /// # Errors
    /// A sentence.
    pub fn store(&self, registry: &str, credential: &Credential) -> Result<String, String> {
        let (user, secret) = match credential {
            Credential::Password { user, password } => (user.clone(), password.clone()),
            Credential::Identity(token) => ("<token>".to_owned(), token.clone()),
        };
        let key = keys(registry)[0].clone();
        if let Some(helper) = self.helper(registry)? {
            let document = HelperAnswer { server: key, username: user, secret };
            let document = serde_json::to_string(&document).expect("strings always serialise");
            run_helper(&helper, "store", &document)?;
            return Ok(format!("the helper `docker-credential-{helper}`"));
        }
        let path = self.own.as_ref().ok_or("there is no place to keep them: neither XDG_CONFIG_HOME nor HOME is set")?;
        let mut file = read(path)?.unwrap_or_default();
        let entry = match credential {
            Credential::Password { user, password } => Entry { auth: Some(encode(&format!("{user}:{password}"))), ..Entry::default() },
            Credential::Identity(token) => Entry { identity: Some(token.clone()), ..Entry::default() },
        };
        file.auths.insert(key, entry);
        write(path, &file)?;
        Ok(format!("`{}`", path.display()))
    }

    /// Forgets credentials. Returns whether there were any that we may remove.
    ///
    /// # Errors
    /// A sentence.
    pub fn erase(&self, registry: &str) -> Result<bool, String> {
        let mut was_there = false;
        if let Some(helper) = self.helper(registry)?
            && ask_helper(&helper, &keys(registry))?.is_some()
        {
            run_helper(&helper, "erase", &keys(registry)[0])?;
            was_there = true;
        }
        if let Some(path) = &self.own
            && let Some(mut file) = read(path)?
        {
            let before = file.auths.len();
            keys(registry).iter().for_each(|key| drop(file.auths.remove(key)));
            if file.auths.len() < before {
                write(path, &file)?;
                was_there = true;
            }
        }
        Ok(was_there)
    }

    /// Returns a file of others that has credentials for the registry, for the message that they are not ours to remove.
    pub fn other_with(&self, registry: &str) -> Option<&Path> {
        let has =
            |path: &&PathBuf| read(path).is_ok_and(|file| file.is_some_and(|f| keys(registry).iter().any(|k| f.auths.contains_key(k))));
        self.others.iter().find(has).map(PathBuf::as_path)
    }

    fn helper(&self, registry: &str) -> Result<Option<String>, String> {
        for path in &self.others {
            if let Some(helper) = read(path)?.and_then(|file| file.helper(registry)) {
                return Ok(Some(helper));
            }
        }
        Ok(None)
    }
}

impl File {
    fn helper(&self, registry: &str) -> Option<String> {
        keys(registry).iter().find_map(|key| self.helpers.get(key)).or(self.store.as_ref()).filter(|h| !h.is_empty()).cloned()
    }

    fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>, String> {
        if let Some(helper) = self.helper(registry)
            && let Some(found) = ask_helper(&helper, &keys(registry))?
        {
            return Ok(Some(found));
        }
        // podman's files may have credentials for a part of a registry; the longest name wins.
        let mut name = format!("{registry}/{repository}");
        while let Some((shorter, _)) = name.rsplit_once('/') {
            if let Some(entry) = self.auths.get(&name) {
                return entry.credential(&name);
            }
            name = shorter.to_owned();
        }
        match keys(registry).iter().find_map(|key| self.auths.get(key).map(|e| (key, e))) {
            Some((key, entry)) => entry.credential(key),
            None => Ok(None),
        }
    }
}

impl Entry {
    fn credential(&self, key: &str) -> Result<Option<Credential>, String> {
        if let Some(token) = self.identity.as_ref().filter(|t| !t.is_empty()) {
            return Ok(Some(Credential::Identity(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(|a| !a.is_empty()) {
            let broken = || format!("the entry for `{key}` is not the base64 of user:password");
            let text = decode(auth).ok_or_else(broken)?;
            let (user, password) = text.split_once(':').ok_or_else(broken)?;
            return Ok(Some(Credential::Password { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() }));
        }
        Ok(match (&self.username, &self.password) {
            (Some(user), Some(password)) => Some(Credential::Password { user: user.clone(), password: password.clone() }),
            // An empty entry only says that somebody logged in through a helper.
            _ => None,
        })
    }
}

/// Returns how a registry may be called in these files; the first is the one to write.
fn keys(registry: &str) -> Vec<String> {
    if registry == crate::reference::DEFAULT_REGISTRY {
        let others = ["docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io", "https://docker.io"];
        return std::iter::once(DOCKER_HUB_KEY).chain(others).map(str::to_owned).collect();
    }
    ["", "https://", "http://"]
        .iter()
        .flat_map(|scheme| ["", "/", "/v1/", "/v2/", "/v1", "/v2"].map(|path| format!("{scheme}{registry}{path}")))
        .collect()
}

fn read(path: &Path) -> Result<Option<File>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(format!("cannot read `{}`: {e}", path.display())),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|e| format!("`{}` is broken: {e}", path.display()))
}

/// Writes a file that only its owner can read.
fn write(path: &Path, file: &File) -> Result<(), String> {
    let fail = |e: io::Error| format!("cannot write `{}`: {e}", path.display());
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(fail)?;
    // Temporary files are private from the start (mode 0600).
    let mut temporary = tempfile::NamedTempFile::new_in(dir).map_err(fail)?;
    let text = serde_json::to_string_pretty(file).expect("strings always serialise");
    temporary.write_all(text.as_bytes()).and_then(|()| temporary.as_file().sync_all()).map_err(fail)?;
    temporary.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

fn ask_helper(helper: &str, servers: &[String]) -> Result<Option<Credential>, String> {
    // Helpers know a server by the name under which it was stored; the plain one and docker's are tried.
    for server in servers.iter().take(2) {
        let answer = match run_helper(helper, "get", server) {
            Ok(answer) => answer,
            Err(why) if is_not_found(&why) => continue,
            Err(why) => return Err(why),
        };
        let answer: HelperAnswer =
            serde_json::from_str(&answer).map_err(|e| format!("docker-credential-{helper} answers strangely: {e}"))?;
        return Ok(Some(match answer.username.as_str() {
            "<token>" => Credential::Identity(answer.secret),
            _ => Credential::Password { user: answer.username, password: answer.secret },
        }));
    }
    Ok(None)
}

/// The words of docker's own helpers (docker-credential-helpers, credentials/error.go).
fn is_not_found(why: &str) -> bool {
    why.contains("credentials not found") || why.contains("not found in native keychain")
}

fn run_helper(helper: &str, verb: &str, input: &str) -> Result<String, String> {
    // The name comes from a file; it must not lead to another program than it says.
    if helper.is_empty() || helper.contains('/') {
        return Err(format!("`{helper}` is not the name of a credential helper"));
    }
    let program = format!("docker-credential-{helper}");
    let fail = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => format!("the credential helper `{program}` is not installed, and the docker configuration asks for it"),
        _ => format!("cannot run the credential helper `{program}`: {e}"),
    };
    let mut child =
        Command::new(&program).arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // A helper that has seen enough is no trouble.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(fail(e)),
            _ => {}
        }
    }
    let out = child.wait_with_output().map_err(fail)?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(text);
    }
    let said = if text.trim().is_empty() { String::from_utf8_lossy(&out.stderr).into_owned() } else { text };
    Err(format!("the credential helper `{program} {verb}` failed: {}", said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path, json: &str) -> CredentialFiles {
        fs::write(dir.join("config.json"), json).unwrap();
        CredentialFiles { own: Some(dir.join("own/auth.json")), others: vec![dir.join("missing.json"), dir.join("config.json")] }
    }

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password { user: user.into(), password: password.into() }
    }

    #[test]
    fn entries() {
        let dir = tempfile::tempdir().unwrap();
        let json = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{}"}}, "a.b": {{"identitytoken": "t"}}, "https://c.d/v2/": {{"username": "u", "password": "p"}},
            "e.f": {{}}, "g.h/team": {{"auth": "{}"}}, "g.h/team/app": {{"auth": "{}"}}, "i.j": {{"auth": "%%"}}}}, "HttpHeaders": {{}}}}"#,
            encode("me:a:b"),
            encode("team:1"),
            encode("app:2")
        );
        let files = files(dir.path(), &json);
        for (registry, repository, expected) in [
            ("docker.io", "library/debian", Some(password("me", "a:b"))),
            ("a.b", "x", Some(Credential::Identity("t".into()))),
            ("c.d", "x", Some(password("u", "p"))),
            ("e.f", "x", None),
            ("g.h", "team/app", Some(password("app", "2"))),
            ("g.h", "team/other", Some(password("team", "1"))),
            ("g.h", "x", None),
            ("nowhere", "x", None),
        ] {
            assert_eq!(files.find(registry, repository), Ok(expected), "{registry}/{repository}");
        }
        assert!(files.find("i.j", "x").unwrap_err().contains("base64"));
    }

    #[test]
    fn what_is_stored_is_found_private_and_erased() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let before = r#"{"auths": {"a.b": {"auth": "eDp5"}}}"#;
        let files = files(dir.path(), before);
        assert!(files.store("docker.io", &password("me", "secret")).unwrap().contains("own/auth.json"));
        files.store("a.b", &password("new", "pw")).unwrap();
        let own = dir.path().join("own/auth.json");
        assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(files.find("docker.io", "library/x"), Ok(Some(password("me", "secret"))));
        assert_eq!(files.find("a.b", "x"), Ok(Some(password("new", "pw"))));
        assert_eq!(files.erase("a.b"), Ok(true));
        assert_eq!((files.erase("a.b"), files.find("a.b", "x")), (Ok(false), Ok(Some(password("x", "y")))));
        assert!(files.other_with("a.b").is_some());
        assert_eq!(fs::read_to_string(dir.path().join("config.json")).unwrap(), before, "docker's file is not ours");
    }

    #[test]
    fn broken_files_and_helpers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(files(dir.path(), "{").find("a", "b").unwrap_err().contains("config.json` is broken"));
        let missing = files(dir.path(), r#"{"credsStore": "no-such-helper-of-ukc"}"#).find("a.b", "c").unwrap_err();
        assert!(missing.contains("`docker-credential-no-such-helper-of-ukc` is not installed"), "{missing}");
        let odd = files(dir.path(), r#"{"credHelpers": {"a.b": "../../bin/sh"}}"#);
        assert!(odd.find("a.b", "c").unwrap_err().contains("not the name"));
        assert_eq!(odd.find("c.d", "c"), Ok(None));
    }
}
