//! The image configuration: JSON ↔ [`ImageConfig`] (OCI image-spec, config.md; Docker image-spec v1.3 for `Shell`, `Healthcheck`, `OnBuild`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use ukc_rootfs::{Healthcheck, ImageConfig};

use crate::Digest;

/// One line of an image's history: an instruction, and whether it made a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction, in BuildKit's words.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub created_by: String,
    /// The maintainer.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub author: String,
    /// `buildkit.dockerfile.v0` and the like.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub comment: String,
    /// True when the instruction changed no file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub empty_layer: bool,
}

/// A configuration document: what the process is, and what the layers are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDocument {
    /// The process.
    pub config: ImageConfig,
    /// When the image was made, RFC 3339.
    pub created: Option<String>,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Oldest first.
    pub history: Vec<History>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Document {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    os: String,
    #[serde(deserialize_with = "null_is_default")]
    config: Config,
    #[serde(deserialize_with = "null_is_default")]
    rootfs: RootFs,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    history: Vec<History>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    #[serde(deserialize_with = "null_is_default")]
    diff_ids: Vec<String>,
}

/// Go's encoding: a set is an object with empty objects as values.
type Set = BTreeMap<String, Empty>;

#[derive(Default, Serialize, Deserialize)]
struct Empty {}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    exposed_ports: Set,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Health>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    volumes: Set,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    on_build: Vec<String>,
}

/// Durations are nanoseconds (Go's `time.Duration`).
#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Health {
    #[serde(deserialize_with = "null_is_default")]
    test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    retries: i64,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// Go writes nil maps and slices as `null`.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageDocument {
    /// Reads a configuration document.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn from_json(json: &[u8]) -> Result<ImageDocument, String> {
        let doc: Document = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        let mut config = ImageConfig {
            user: doc.config.user,
            working_dir: doc.config.working_dir,
            entrypoint: doc.config.entrypoint,
            cmd: doc.config.cmd,
            labels: doc.config.labels,
            exposed_ports: doc.config.exposed_ports.into_keys().collect(),
            volumes: doc.config.volumes.into_keys().collect(),
            stop_signal: doc.config.stop_signal.filter(|s| !s.is_empty()),
            shell: doc.config.shell.filter(|s| !s.is_empty()),
            healthcheck: doc.config.healthcheck.map(Health::into),
            on_build: doc.config.on_build,
            author: doc.author.filter(|a| !a.is_empty()),
            architecture: doc.architecture,
            os: doc.os,
            env: vec![],
        };
        for pair in &doc.config.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            config.set_env(name, value);
        }
        let digest = |text: &String| text.parse().map_err(|()| format!("the diff id `{text}` is not a sha256 digest"));
        let diff_ids = doc.rootfs.diff_ids.iter().map(digest).collect::<Result<_, _>>()?;
        Ok(ImageDocument { config, created: doc.created, diff_ids, history: doc.history })
    }

    /// Writes the document; the same value gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let c = &self.config;
        let set = |names: &BTreeSet<String>| names.iter().map(|n| (n.clone(), Empty {})).collect();
        let doc = Document {
            created: self.created.clone(),
            author: c.author.clone(),
            architecture: if c.architecture.is_empty() { "amd64".into() } else { c.architecture.clone() },
            variant: None,
            os: if c.os.is_empty() { "linux".into() } else { c.os.clone() },
            config: Config {
                user: c.user.clone(),
                exposed_ports: set(&c.exposed_ports),
                env: c.env.iter().map(|(n, v)| format!("{n}={v}")).collect(),
                entrypoint: c.entrypoint.clone(),
                cmd: c.cmd.clone(),
                healthcheck: c.healthcheck.as_ref().map(Health::from),
                volumes: set(&c.volumes),
                working_dir: c.working_dir.clone(),
                labels: c.labels.clone(),
                stop_signal: c.stop_signal.clone(),
                shell: c.shell.clone(),
                on_build: c.on_build.clone(),
            },
            rootfs: RootFs { kind: "layers".into(), diff_ids: self.diff_ids.iter().map(Digest::to_string).collect() },
            history: self.history.clone(),
        };
        serde_json::to_vec(&doc).expect("strings and numbers always serialise")
    }
}

impl From<Health> for Healthcheck {
    fn from(h: Health) -> Healthcheck {
        let duration = |nanos: i64| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        Healthcheck {
            test: h.test,
            interval: duration(h.interval),
            timeout: duration(h.timeout),
            start_period: duration(h.start_period),
            start_interval: duration(h.start_interval),
            retries: u32::try_from(h.retries).unwrap_or(0),
        }
    }
}

impl From<&Healthcheck> for Health {
    fn from(h: &Healthcheck) -> Health {
        let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        Health {
            test: h.test.clone(),
            interval: nanos(h.interval),
            timeout: nanos(h.timeout),
            start_period: nanos(h.start_period),
            start_interval: nanos(h.start_interval),
            retries: i64::from(h.retries),
        }
    }
}

/// A moment as seconds since the epoch, printed as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp(pub i64);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, seconds) = (self.0.div_euclid(86_400), self.0.rem_euclid(86_400));
        // Days to the civil calendar, with years that start in March so that the leap day comes last (H. Hinnant, "chrono-Compatible Low-Level
        // Date Algorithms", civil_from_days).
        let z = days + 719_468;
        let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp(seconds).to_string(), text);
        }
    }

    #[test]
    fn everything_survives_a_round_trip() {
        let mut config = ImageConfig {
            user: "www:staff".into(),
            working_dir: "/srv".into(),
            entrypoint: Some(vec!["/bin/x".into(), "a b".into()]),
            cmd: Some(vec![]),
            stop_signal: Some("SIGQUIT".into()),
            shell: Some(vec!["/bin/bash".into(), "-c".into()]),
            healthcheck: Some(Healthcheck {
                test: vec!["CMD".into(), "true".into()],
                interval: Duration::from_millis(1500),
                retries: 3,
                ..Default::default()
            }),
            on_build: vec!["RUN x".into()],
            author: Some("me".into()),
            architecture: "amd64".into(),
            os: "linux".into(),
            ..Default::default()
        };
        config.set_env("A", "1=2");
        config.set_env("B", "");
        config.labels.insert("l".into(), "v".into());
        config.exposed_ports.insert("80/tcp".into());
        config.volumes.insert("/data".into());
        let doc = ImageDocument {
            config,
            created: Some("1970-01-01T00:00:00Z".into()),
            diff_ids: vec![Digest::of(b"x")],
            history: vec![History { created_by: "CMD [\"x\"]".into(), empty_layer: true, ..Default::default() }],
        };
        assert_eq!(ImageDocument::from_json(&doc.to_json()).unwrap(), doc);
    }

    #[test]
    fn go_nulls_and_unknown_fields_are_fine() {
        let json = br#"{"architecture":"amd64","os":"linux","container":"x","config":{"Hostname":"","Env":null,"Cmd":null,"Volumes":null,
            "Labels":null,"OnBuild":null,"Entrypoint":[],"Healthcheck":{"Test":["NONE"]},"ArgsEscaped":true},"history":null,"rootfs":{"type":"layers","diff_ids":null}}"#;
        let doc = ImageDocument::from_json(json).unwrap();
        assert_eq!((doc.config.cmd, doc.config.entrypoint), (None, Some(vec![])));
        assert_eq!(doc.config.healthcheck.unwrap().test, ["NONE"]);
        assert!(ImageDocument::from_json(br#"{"rootfs":{"diff_ids":["md5:1"]}}"#).unwrap_err().contains("md5:1"));
        assert!(ImageDocument::from_json(b"[").is_err());
    }
}
