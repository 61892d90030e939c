//! How other machines are reached: flags and configuration → a client; and how its work is shown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::Args;
use indicatif::ProgressBar;
use ukc_config::Config;
use ukc_driver::oci::Digest;
use ukc_driver::oci::registry::{Event, Observer, Registries, Settings};

use crate::places;
use crate::report::{self, Failure};
use crate::units;

/// Flags of every command that may use a registry.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkArgs {
    /// Place to ask before a registry [default registry: docker.io]
    #[arg(long = "registry-mirror", value_name = "[REGISTRY=][http://]HOST[:PORT]")]
    pub mirrors: Vec<String>,
    /// Registry that may do without TLS or a trusted certificate; those on this machine always may
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    pub insecure: Vec<String>,
    /// Use no network: what is not in the local store is an error
    #[arg(long)]
    pub offline: bool,
}

impl NetworkArgs {
    /// Returns how registries are reached.
    pub fn settings(&self, config: &Config) -> Result<Settings, Failure> {
        let mut settings = Settings::from_environment(own_credentials());
        for text in &self.mirrors {
            settings.add_mirror(text).map_err(|why| Failure::usage(format!("--registry-mirror: {why}")))?;
        }
        for (name, registry) in &config.registries {
            for place in &registry.mirrors {
                settings
                    .add_mirror(&format!("{name}={place}"))
                    .map_err(|why| Failure::usage(format!("the configuration of `{name}`: {why}")))?;
            }
            if registry.insecure {
                settings.insecure.push(name.clone());
            }
            if let Some(ca) = &registry.ca {
                settings.authorities.entry(name.clone()).or_default().push(ca.clone());
            }
        }
        settings.insecure.extend(self.insecure.iter().cloned());
        settings.is_offline = self.offline;
        Ok(settings)
    }
}

/// Returns the file with credentials for ukc alone; those of docker and podman are read, too, and never written.
pub fn own_credentials() -> Option<PathBuf> {
    places::config().ok().map(|dir| dir.join("auth.json"))
}

/// Returns a client whose work `transfers` shows.
pub fn client(settings: Settings, transfers: &Transfers) -> Registries {
    Registries::new(settings, transfers.observer())
}

/// Blobs on their way. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Transfers(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By blob: bytes that came or went, and all.
    blobs: BTreeMap<Digest, (u64, u64)>,
    /// Whether finished blobs are worth a line.
    has_lines: bool,
    /// What must be out of the way when a line is printed.
    bar: Option<ProgressBar>,
}

impl Transfers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a line is printed for each blob that is done.
    pub fn show_lines(&self) {
        self.state().has_lines = true;
    }

    /// From now on lines are printed above this bar.
    pub fn show_above(&self, bar: &ProgressBar) {
        self.state().bar = Some(bar.clone());
    }

    /// Returns what is on its way: `12 MB of 45 MB`, or nothing.
    pub fn summary(&self) -> String {
        let (done, total) = self.state().blobs.values().fold((0, 0), |(done, total), (d, t)| (done + d, total + t));
        if done == total { String::new() } else { format!("{} of {}", units::size(done), units::size(total)) }
    }

    fn observer(&self) -> Observer {
        let this = self.clone();
        Arc::new(move |event| this.hear(event))
    }

    fn hear(&self, event: Event) {
        let mut state = self.state();
        let line = match event {
            Event::Receiving { digest, done, total } | Event::Sending { digest, done, total } => {
                let before = state.blobs.insert(digest, (done, total));
                let is_new_end = done == total && before.is_none_or(|(d, _)| d < total);
                (is_new_end && state.has_lines).then(|| format!("  {} {}", short(&digest), units::size(total)))
            }
            Event::AlreadyThere { digest, .. } => state.has_lines.then(|| format!("  {} is there already", short(&digest))),
            Event::Notice(text) => Some(format!("ukc: {text}")),
        };
        let Some(line) = line else { return };
        match &state.bar {
            Some(bar) => bar.suspend(|| report::line_of_progress(&line)),
            None => report::line_of_progress(&line),
        }
    }
}

fn short(digest: &Digest) -> String {
    format!("sha256:{}", &digest.hex()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_summed_up() {
        let transfers = Transfers::default();
        let hear = transfers.observer();
        assert_eq!(transfers.summary(), "");
        hear(Event::Receiving { digest: Digest::of(b"a"), done: 1_000_000, total: 2_000_000 });
        hear(Event::Sending { digest: Digest::of(b"b"), done: 0, total: 3_000_000 });
        assert_eq!(transfers.summary(), format!("{} of {}", units::size(1_000_000), units::size(5_000_000)));
        hear(Event::Receiving { digest: Digest::of(b"a"), done: 2_000_000, total: 2_000_000 });
        hear(Event::Sending { digest: Digest::of(b"b"), done: 3_000_000, total: 3_000_000 });
        assert_eq!(transfers.summary(), "");
    }
}
