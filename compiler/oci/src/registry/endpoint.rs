//! One registry or mirror: where it is, and how it wants to be asked.
//!
//! A request without credentials is tried first; the challenge that comes back says which token is wanted and from whom (distribution, "Token
//! Authentication Specification"). Tokens are kept by what they allow, as long as they are good.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ukc_fetch::{Again, Answer, Body, Failed, Http, HttpError, Method, Request, host_of};

use super::base64::encode;
use super::challenge::Challenge;
use super::error::message_of;
use super::{Cause, Credential, RegistryError, Settings};
use crate::reference::DEFAULT_REGISTRY;

/// Where docker.io is.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// Tokens without a lifetime are good for this long (the specification's default).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// How much earlier than it says a token is thought to end.
const MARGIN: Duration = Duration::from_secs(10);
/// A token document is refused beyond this.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// A machine that is not there is asked this often: it will hardly come up while we wait.
const ATTEMPTS_WHEN_DOWN: u32 = 3;

/// What a request is allowed to do in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    /// `pull`, or `pull,push`.
    pub actions: &'static str,
    /// Of the repository.
    pub repository: String,
    /// A further repository that is read, for mounts.
    pub also_from: Option<String>,
}

impl Scope {
    pub fn pull(repository: &str) -> Scope {
        Scope { actions: "pull", repository: repository.to_owned(), also_from: None }
    }

    pub fn push(repository: &str) -> Scope {
        Scope { actions: "pull,push", repository: repository.to_owned(), also_from: None }
    }

    /// What the token server is asked for.
    fn texts(&self) -> Vec<String> {
        let own = (!self.repository.is_empty()).then(|| format!("repository:{}:{}", self.repository, self.actions));
        own.into_iter().chain(self.also_from.iter().map(|from| format!("repository:{from}:pull"))).collect()
    }
}

/// A request to an endpoint. The URL is absolute, or begins with `/v2/`.
pub(crate) struct Call<'a> {
    pub method: Method,
    pub url: &'a str,
    pub headers: &'a [(&'static str, String)],
    /// Called for each attempt anew.
    pub body: &'a mut dyn FnMut() -> Result<CallBody, std::io::Error>,
    /// Whether the caller tries again itself.
    pub is_once: bool,
}

/// What a [`Call`] sends.
pub(crate) enum CallBody {
    Empty,
    Bytes(Vec<u8>),
    Reader(Box<dyn std::io::Read>, u64),
}

impl<'a> Call<'a> {
    pub fn get(
        url: &'a str,
        headers: &'a [(&'static str, String)],
        empty: &'a mut dyn FnMut() -> Result<CallBody, std::io::Error>,
    ) -> Call<'a> {
        Call { method: Method::Get, url, headers, body: empty, is_once: false }
    }
}

/// The body of requests that have none.
pub(crate) fn no_body() -> Result<CallBody, std::io::Error> {
    Ok(CallBody::Empty)
}

struct Token {
    header: String,
    until: Option<Instant>,
}

/// See the module.
pub(crate) struct Endpoint {
    /// What users call it.
    pub registry: String,
    /// `https://host[:port]`, once it is known whether it is `http://`.
    base: OnceLock<String>,
    /// `host[:port]`.
    host: String,
    /// `http` or `https`, if that was said.
    scheme: Option<String>,
    /// Stands before the names of repositories, with a `/` at its end unless it is empty.
    prefix: String,
    http: OnceLock<Http>,
    tokens: Mutex<HashMap<String, Token>>,
    settings: Settings,
    pub is_mirror: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub fn new(registry: &str, settings: &Settings) -> Endpoint {
        let place = if registry == DEFAULT_REGISTRY { DOCKER_HUB } else { registry };
        Endpoint::at(registry, place, settings, false)
    }

    pub fn mirror(place: &str, settings: &Settings) -> Endpoint {
        Endpoint::at(host_of(place), place, settings, true)
    }

    fn at(registry: &str, place: &str, settings: &Settings, is_mirror: bool) -> Endpoint {
        let rest = place.split_once("://").map_or(place, |(_, rest)| rest);
        let prefix = rest.split_once('/').map(|(_, path)| format!("{}/", path.trim_matches('/'))).filter(|p| p != "/").unwrap_or_default();
        Endpoint {
            registry: registry.to_owned(),
            base: OnceLock::new(),
            host: host_of(place).to_owned(),
            scheme: place.split_once("://").map(|(scheme, _)| scheme.to_owned()),
            prefix,
            http: OnceLock::new(),
            tokens: Mutex::new(HashMap::new()),
            settings: settings.clone(),
            is_mirror,
        }
    }

    fn host(&self) -> &str {
        &self.host
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns what a repository is called here.
    pub fn repository(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn http(&self) -> &Http {
        self.http.get_or_init(|| Http::new(self.settings.trust(self.host())))
    }

    /// Finds out whether the registry speaks TLS. Only those that may do without are asked.
    fn base(&self) -> Result<&str, HttpError> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let base = if let Some(scheme) = &self.scheme {
            format!("{scheme}://{}", self.host)
        } else if self.settings.is_insecure(self.host()) {
            let plain = format!("http://{}", self.host);
            let speaks_plain = match self.http().send(Request::get(&format!("http://{}/v2/", self.host()))) {
                // Go's server says so to plain HTTP on a TLS port.
                Ok(answer) if answer.status() == 400 => !answer.into_message().contains("HTTPS server"),
                Ok(_) => true,
                // Others hang up.
                Err(e) if e.why.contains("does not speak HTTP") || e.why.contains("failed") => false,
                Err(e) => return Err(e),
            };
            if speaks_plain { plain } else { format!("https://{}", self.host) }
        } else {
            format!("https://{}", self.host)
        };
        Ok(self.base.get_or_init(|| base))
    }

    /// Makes the error of a request for `what`.
    pub fn error(&self, what: &str, cause: Cause) -> RegistryError {
        RegistryError { registry: self.registry.clone(), what: what.to_owned(), cause }
    }

    /// Sends a request, with credentials if they are asked for, and again where that may help. The status of the answer is one of those in `fine`, or
    /// 2xx when there are none; everything else is an error.
    pub fn call(&self, what: &str, scope: &Scope, mut call: Call<'_>, fine: &[u16]) -> Result<Answer, RegistryError> {
        let mut number = 1;
        loop {
            let failed = match self.attempt(what, scope, &mut call, fine) {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if self.settings.cancel.is_set() {
                return Err(self.error(what, Cause::Interrupted));
            }
            if call.is_once {
                return Err(failed.error);
            }
            let is_down = matches!(failed.error.cause, Cause::Unreachable { .. });
            if is_down && number >= ATTEMPTS_WHEN_DOWN || !self.settings.retries.wait(&self.settings.cancel, number, failed.again) {
                return Err(if self.settings.cancel.is_set() { self.error(what, Cause::Interrupted) } else { failed.error });
            }
            number += 1;
        }
    }

    fn attempt(&self, what: &str, scope: &Scope, call: &mut Call<'_>, fine: &[u16]) -> Result<Answer, Failed<RegistryError>> {
        let stop = |cause| Failed { error: self.error(what, cause), again: Again::No };
        if self.settings.cancel.is_set() {
            return Err(stop(Cause::Interrupted));
        }
        if self.settings.is_offline {
            return Err(stop(Cause::Offline));
        }
        let mut was_challenged = false;
        loop {
            let base = self.base().map_err(|e| self.unreachable(what, e))?;
            let url = if call.url.starts_with('/') { format!("{base}{}", call.url) } else { call.url.to_owned() };
            // Uploads may lead to another host, which must not see our credentials.
            let authorization = (host_of(&url) == host_of(base)).then(|| self.known_token(scope)).flatten();
            let mut headers = call.headers.to_vec();
            let has_token = authorization.is_some();
            headers.extend(authorization.map(|value| ("authorization", value)));
            let made = (call.body)().map_err(|e| stop(Cause::Unexpected(format!("what is to be sent cannot be read: {e}"))))?;
            let mut reader;
            let body = match &made {
                CallBody::Empty => Body::Empty,
                CallBody::Bytes(bytes) => Body::Bytes(bytes),
                CallBody::Reader(..) => {
                    let CallBody::Reader(inner, len_bytes) = made else { unreachable!("just matched") };
                    reader = inner;
                    Body::Reader(&mut *reader, len_bytes)
                }
            };
            let answer = self
                .http()
                .send(Request { method: call.method, url: &url, headers: &headers, body })
                .map_err(|e| self.unreachable(what, e))?;
            let status = answer.status();
            if if fine.is_empty() { answer.is_ok() } else { fine.contains(&status) } {
                return Ok(answer);
            }
            if status == 401 && !was_challenged {
                was_challenged = true;
                let challenge = Challenge::best(answer.headers("www-authenticate"));
                drop(answer);
                if has_token {
                    // It may have ended early.
                    self.forget_token(scope);
                }
                if let Some(challenge) = challenge
                    && self.authenticate(what, scope, challenge)?
                {
                    continue;
                }
                return Err(stop(Cause::Denied { status, message: String::new(), with_credentials: false }));
            }
            return Err(self.refused(what, scope, answer));
        }
    }

    fn unreachable(&self, what: &str, e: HttpError) -> Failed<RegistryError> {
        Failed { error: self.error(what, Cause::Unreachable { why: e.why, is_tls: e.is_tls }), again: e.again }
    }

    /// Says what an answer that is none means.
    fn refused(&self, what: &str, scope: &Scope, answer: Answer) -> Failed<RegistryError> {
        let (status, again) = (answer.status(), answer.again());
        let message = message_of(&answer.into_message());
        let with_credentials = self.credential(&scope.repository).is_ok_and(|c| c.is_some());
        let cause = match status {
            404 => Cause::NotFound(message),
            401 | 403 => Cause::Denied { status, message, with_credentials },
            429 => Cause::Busy(message),
            500.. => Cause::Failing { status, message },
            _ => Cause::Unexpected(format!("status {status}{}", if message.is_empty() { String::new() } else { format!(" ({message})") })),
        };
        Failed { error: self.error(what, cause), again }
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_token(&self, scope: &Scope) -> Option<String> {
        let mut tokens = self.tokens();
        let key = scope.texts().join(" ");
        let key = if tokens.contains_key(&key) { key } else { String::new() };
        let token = tokens.get(&key)?;
        if token.until.is_some_and(|until| Instant::now() >= until) {
            tokens.remove(&key);
            return None;
        }
        Some(token.header.clone())
    }

    fn forget_token(&self, scope: &Scope) {
        let mut tokens = self.tokens();
        tokens.remove(&scope.texts().join(" "));
        tokens.remove("");
    }

    fn credential(&self, repository: &str) -> Result<Option<Credential>, String> {
        // Credentials of a registry are for it alone; a mirror has its own.
        self.settings.credentials.find(&self.registry, repository)
    }

    /// Answers a challenge. `false` when there is nothing to answer it with.
    fn authenticate(&self, what: &str, scope: &Scope, challenge: Challenge) -> Result<bool, Failed<RegistryError>> {
        let stop = |cause| Failed { error: self.error(what, cause), again: Again::No };
        let credential = self.credential(&scope.repository).map_err(|why| stop(Cause::Credentials(why)))?;
        match (challenge, credential) {
            (Challenge::Basic, Some(Credential::Password { user, password })) => {
                // Basic credentials are good for everything.
                self.tokens().insert(String::new(), Token { header: basic(&user, &password), until: None });
                Ok(true)
            }
            (Challenge::Basic, _) => Ok(false),
            (Challenge::Bearer { realm, service, scope: wanted }, credential) => {
                let token = self.fetch_token(what, scope, &realm, service.as_deref(), wanted.as_deref(), credential.as_ref())?;
                self.tokens().insert(scope.texts().join(" "), token);
                Ok(true)
            }
        }
    }

    fn fetch_token(
        &self,
        what: &str,
        scope: &Scope,
        realm: &str,
        service: Option<&str>,
        wanted: Option<&str>,
        credential: Option<&Credential>,
    ) -> Result<Token, Failed<RegistryError>> {
        let failed = |cause, again| Failed { error: self.error(what, cause), again };
        let may_be_plain = self.settings.is_insecure(self.host());
        if !realm.starts_with("https://") && (!may_be_plain || !realm.starts_with("http://")) {
            // Anybody on the way could read the password.
            return Err(failed(Cause::Unexpected(format!("it sends credentials to `{realm}`, which is not safe")), Again::No));
        }
        let mut scopes = scope.texts();
        if scopes.is_empty() {
            scopes.extend(wanted.map(str::to_owned));
        }
        let mut query: Vec<(&str, &str)> = scopes.iter().map(|s| ("scope", s.as_str())).collect();
        query.extend(service.map(|s| ("service", s)));
        let answer = match credential {
            Some(Credential::Identity(token)) => {
                query = vec![("grant_type", "refresh_token"), ("client_id", "ukc"), ("refresh_token", token)];
                let all = scopes.join(" ");
                query.push(("scope", &all));
                query.extend(service.map(|s| ("service", s)));
                let form = encode_query(&query);
                let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
                self.http().send(Request { method: Method::Post, url: realm, headers: &headers, body: Body::Bytes(form.as_bytes()) })
            }
            _ => {
                let mut headers = vec![];
                if let Some(Credential::Password { user, password }) = credential {
                    query.push(("account", user));
                    headers.push(("authorization", basic(user, password)));
                }
                let url = format!("{realm}{}{}", if realm.contains('?') { '&' } else { '?' }, encode_query(&query));
                self.http().send(Request { headers: &headers, ..Request::get(&url) })
            }
        };
        let answer = answer.map_err(|e| self.unreachable(what, e))?;
        let (status, again) = (answer.status(), answer.again());
        if !answer.is_ok() {
            let message = message_of(&answer.into_message());
            let cause = match status {
                400 | 401 | 403 => Cause::Denied { status, message, with_credentials: credential.is_some() },
                429 => Cause::Busy(message),
                500.. => Cause::Failing { status, message },
                _ => Cause::Unexpected(format!("its token server `{}` answers with status {status}", host_of(realm))),
            };
            return Err(failed(cause, again));
        }
        #[derive(Deserialize)]
        struct Document {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let strange = |why: String| failed(Cause::Unexpected(format!("its token server `{}`: {why}", host_of(realm))), Again::No);
        let bytes = answer.into_bytes(MAX_TOKEN_BYTES).map_err(|e| failed(Cause::Cut(e.to_string()), Again::Soon))?;
        let document: Document = serde_json::from_slice(&bytes).map_err(|e| strange(e.to_string()))?;
        let token = document.token.or(document.access_token).filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic()));
        let token = token.ok_or_else(|| strange("it sends no token".to_owned()))?;
        let lifetime = document.expires_in.filter(|s| *s > 0).map_or(DEFAULT_LIFETIME, Duration::from_secs);
        Ok(Token {
            header: format!("Bearer {token}"),
            until: Instant::now().checked_add(lifetime.saturating_sub(MARGIN).max(lifetime / 2)),
        })
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", encode(&format!("{user}:{password}")))
}

/// Encodes a query, or a form (WHATWG URL, "application/x-www-form-urlencoded", with `%20` for spaces).
fn encode_query(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        for (text, end) in [(name, "="), (value, "")] {
            for byte in text.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b',' => out.push(byte as char),
                    other => out.push_str(&format!("%{other:02X}")),
                }
            }
            out.push_str(end);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let pairs = [("scope", "repository:a/b:pull,push"), ("service", "my service&x=é")];
        assert_eq!(encode_query(&pairs), "scope=repository:a/b:pull,push&service=my%20service%26x%3D%C3%A9");
    }

    #[test]
    fn scopes() {
        let scope = Scope { also_from: Some("c".into()), ..Scope::push("a/b") };
        assert_eq!(scope.texts(), ["repository:a/b:pull,push", "repository:c:pull"]);
        assert_eq!(Scope::pull("").texts(), Vec::<String>::new());
    }
}
