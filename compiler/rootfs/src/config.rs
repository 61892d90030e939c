//! What the image's process is: the part of an OCI image configuration that a Dockerfile sets and a kernel needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The configuration an image is started with (OCI image-spec, config.md; Docker's additions `Shell`, `Healthcheck`, `OnBuild`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `NAME=value` pairs in order of definition; a name stands once.
    pub env: Vec<(String, String)>,
    /// `USER` as written: `name`, `uid`, `name:group`, `uid:gid`; empty is root.
    pub user: String,
    /// `WORKDIR`: absolute and clean; empty is `/`.
    pub working_dir: String,
    /// `ENTRYPOINT`; `None` when no instruction set one, an empty list after `ENTRYPOINT []`.
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`, likewise.
    pub cmd: Option<Vec<String>>,
    /// `LABEL`s.
    pub labels: BTreeMap<String, String>,
    /// `EXPOSE`d ports in the form `8080/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// `VOLUME`s, absolute paths.
    pub volumes: BTreeSet<String>,
    /// `STOPSIGNAL` as written; `None` is SIGTERM.
    pub stop_signal: Option<String>,
    /// `SHELL`; `None` is `["/bin/sh", "-c"]`.
    pub shell: Option<Vec<String>>,
    /// `HEALTHCHECK`.
    pub healthcheck: Option<Healthcheck>,
    /// `ONBUILD` triggers, as written, in order.
    pub on_build: Vec<String>,
    /// `MAINTAINER` (deprecated).
    pub author: Option<String>,
    /// `amd64`, `arm64`, ... (GOARCH).
    pub architecture: String,
    /// `linux`.
    pub os: String,
}

/// A health check; zero durations mean the default (Dockerfile reference, "HEALTHCHECK").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval: Duration,
    /// `--timeout`.
    pub timeout: Duration,
    /// `--start-period`.
    pub start_period: Duration,
    /// `--start-interval`.
    pub start_interval: Duration,
    /// `--retries`; 0 is the default.
    pub retries: u32,
}

impl ImageConfig {
    /// Returns the argument vector the image starts: `ENTRYPOINT` with `CMD` appended; a shell-form `ENTRYPOINT` was stored so that `CMD` is ignored
    /// (Dockerfile reference, "Understand how CMD and ENTRYPOINT interact"). Empty when the image says nothing.
    pub fn argv(&self) -> Vec<String> {
        let mut argv = self.entrypoint.clone().unwrap_or_default();
        argv.extend(self.cmd.iter().flatten().cloned());
        argv
    }

    /// Returns the value of an environment variable.
    pub fn env_var(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Sets an environment variable, keeping the place of one that exists.
    pub fn set_env(&mut self, name: &str, value: &str) {
        match self.env.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => *v = value.to_owned(),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
    }
}
