//! The text form of an image's configuration, which stands before the tree's in `--emit rootfs`.

use std::fmt::Write;

use ukc_rootfs::ImageConfig;

/// Returns one line per value that the configuration sets, every string quoted.
pub fn config_text(config: &ImageConfig) -> String {
    let mut out = String::new();
    for (name, value) in &config.env {
        let _ = writeln!(out, "env {:?}", format!("{name}={value}"));
    }
    for (key, value) in [("user", &config.user), ("workdir", &config.working_dir)] {
        if !value.is_empty() {
            let _ = writeln!(out, "{key} {value:?}");
        }
    }
    for (key, value) in [("entrypoint", &config.entrypoint), ("cmd", &config.cmd), ("shell", &config.shell)] {
        if let Some(words) = value {
            let _ = writeln!(out, "{key} {words:?}");
        }
    }
    for (name, value) in &config.labels {
        let _ = writeln!(out, "label {:?}", format!("{name}={value}"));
    }
    for port in &config.exposed_ports {
        let _ = writeln!(out, "expose {port}");
    }
    for volume in &config.volumes {
        let _ = writeln!(out, "volume {volume:?}");
    }
    if let Some(signal) = &config.stop_signal {
        let _ = writeln!(out, "stopsignal {signal}");
    }
    if let Some(check) = &config.healthcheck {
        let _ = writeln!(
            out,
            "healthcheck {:?} interval={:?} timeout={:?} start-period={:?} start-interval={:?} retries={}",
            check.test, check.interval, check.timeout, check.start_period, check.start_interval, check.retries
        );
    }
    for trigger in &config.on_build {
        let _ = writeln!(out, "onbuild {trigger:?}");
    }
    out
}
