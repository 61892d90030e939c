//! The flags that are about RUN → what the builder and the sandbox take.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ukc_driver::build::run::{CacheUse, Network, RunOptions};
use ukc_driver::sandbox::{Config, Secret};

use crate::args::Source;
use crate::report::Failure;

/// Returns what decides the meaning of the steps.
pub fn options(source: &Source) -> Result<RunOptions, Failure> {
    let mut out = RunOptions::default();
    for what in source.allow.iter().flat_map(|a| a.split(',')) {
        match what {
            "network.host" => out.allow_host_network = true,
            "security.insecure" => out.allow_insecure = true,
            other => return Err(Failure::usage(format!("`--allow {other}`: there are `network.host` and `security.insecure`"))),
        }
    }
    out.network = match source.network.as_deref() {
        None => None,
        Some("default") => Some(Network::Default),
        Some("none") => Some(Network::None),
        Some("host") => Some(Network::Host),
        Some(other) => return Err(Failure::usage(format!("`--network {other}`: there are `default`, `none` and `host`"))),
    };
    for text in &source.add_hosts {
        // docker takes both separators; an address of IPv6 has colons of its own, and may be in brackets.
        let pair = text.split_once('=').or_else(|| text.split_once(':')).filter(|(name, address)| !name.is_empty() && !address.is_empty());
        let (name, address) = pair.ok_or_else(|| Failure::usage(format!("`--add-host {text}` should have the form NAME:ADDRESS")))?;
        let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(Failure::usage(format!("`--add-host {text}`: `{address}` is not an address")));
        }
        out.hosts.push((name.to_owned(), address.to_owned()));
    }
    if source.no_cache {
        out.cache = CacheUse::Nothing;
    } else if !source.no_cache_filter.is_empty() {
        out.cache = CacheUse::NotOf(source.no_cache_filter.iter().cloned().collect());
    }
    Ok(out)
}

/// Returns what the steps are given.
pub fn surroundings(source: &Source) -> Result<Config, Failure> {
    if let Some(bundle) = &source.ca_bundle {
        std::fs::File::open(bundle).map_err(|e| Failure::new(format!("cannot read the certificates `{}`: {e}", bundle.display())))?;
    }
    Ok(Config {
        ca_bundle: source.ca_bundle.clone(),
        secrets: source.secrets.iter().map(|s| secret(s)).collect::<Result<_, _>>()?,
        agents: agents(&source.ssh)?,
        ..Config::default()
    })
}

/// `id=ID[,src=FILE|,env=NAME][,type=file|env]`; without a source, the variable ID, or the file ID (buildx, "--secret").
fn secret(text: &str) -> Result<(String, Secret), Failure> {
    let (mut id, mut file, mut env) = (None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match key {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(value.to_owned()),
            "env" => env = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => {}
            _ => {
                return Err(Failure::usage(format!(
                    "`--secret {text}`: `{field}` is none of `id=`, `src=`, `env=`, `type=file`, `type=env`"
                )));
            }
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return Err(Failure::usage(format!("`--secret {text}` has no `id=`")));
    };
    let secret = match (env, file) {
        (Some(name), _) => Secret::Env(name),
        (None, Some(file)) => Secret::File(file.into()),
        (None, None) if std::env::var_os(&id).is_some() => Secret::Env(id.clone()),
        (None, None) => Secret::File(id.clone().into()),
    };
    if let Secret::File(path) = &secret
        && !path.is_file()
    {
        return Err(Failure::new(format!("the secret `{id}`: there is no file `{}`", path.display())));
    }
    Ok((id, secret))
}

/// `default` or `ID[=SOCKET]`.
fn agents(given: &[String]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut out = BTreeMap::new();
    for text in given {
        let (id, socket) = match text.split_once('=') {
            Some((id, socket)) => (id, PathBuf::from(socket)),
            None => match std::env::var_os("SSH_AUTH_SOCK") {
                Some(socket) => (text.as_str(), PathBuf::from(socket)),
                None => return Err(Failure::new(format!("`--ssh {text}`: no agent is running (SSH_AUTH_SOCK is not set)"))),
            },
        };
        let is_socket = std::fs::metadata(&socket).is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()));
        if !is_socket {
            let shown = socket.display();
            return Err(Failure::new(format!(
                "`--ssh {text}`: `{shown}` is not the socket of an agent; add keys to an agent with ssh-add"
            )));
        }
        out.insert(id.to_owned(), socket);
    }
    Ok(out)
}
