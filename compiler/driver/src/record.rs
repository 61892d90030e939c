//! Configuration and facts → the boot record: what the kernel starts, and how.
//!
//! The environment is what `docker run` makes of the image's (moby, `createSpec`; runc, "HOME"): `PATH` when the image has none, the host's name, the
//! image's own variables, and `HOME` from the user's passwd entry unless the image sets it.

use ukc_analyze::Facts;
use ukc_boot_record::{BootRecordBuilder, Mount, Network, Port, Protocol};
use ukc_diagnostics::Diagnostic;
use ukc_dockerfile::signal;
use ukc_rootfs::ImageConfig;

/// What PATH is in an image that does not set it (moby, `DefaultPathEnvUnix`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The host name of a record that sets none.
const HOST_NAME: &str = "localhost";

/// SIGTERM.
const DEFAULT_STOP_SIGNAL: u8 = 15;

/// Returns the environment of the program, each `NAME=value`.
pub fn environment(config: &ImageConfig, home: &str) -> Vec<String> {
    let mut env = Vec::new();
    for (name, value) in [("PATH", DEFAULT_PATH), ("HOSTNAME", HOST_NAME)] {
        if config.env_var(name).is_none() {
            env.push(format!("{name}={value}"));
        }
    }
    env.extend(config.env.iter().map(|(name, value)| format!("{name}={value}")));
    if config.env_var("HOME").is_none_or(str::is_empty) {
        env.retain(|e| e != "HOME=");
        env.push(format!("HOME={home}"));
    }
    env
}

/// Returns the number of a stop signal. The Dockerfile's own was checked when it was read; a base image's may be nonsense, and then it is SIGTERM, as in
/// Docker.
pub fn stop_signal_number(name: &str) -> u8 {
    signal::parse(name).unwrap_or(DEFAULT_STOP_SIGNAL)
}

/// Returns the number of a signal by its name, with or without `SIG`, or number.
pub fn signal_number(text: &str) -> Option<u8> {
    signal::parse(text).ok()
}

/// Splits `8080/tcp`; a form that is none is left out.
pub fn exposed_port(text: &str) -> Option<Port> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    Some(Port { port: port.parse().ok().filter(|p| *p != 0)?, protocol })
}

/// Returns the record.
///
/// # Errors
/// A value that no C string can hold, or that the record's reader refuses.
pub fn boot_record(config: &ImageConfig, facts: &Facts) -> Result<Vec<u8>, Diagnostic> {
    let mut record = BootRecordBuilder::new().program(facts.program.path.as_bytes());
    for arg in &facts.program.argv {
        record = record.arg(arg.as_bytes());
    }
    for variable in environment(config, &facts.user.home) {
        record = record.env(variable.as_bytes());
    }
    record = record.cwd(facts.program.directory.as_bytes()).uid(facts.user.uid).gid(facts.user.gid);
    for gid in &facts.user.groups {
        record = record.group(*gid);
    }
    record = record
        .stop_signal(u32::from(config.stop_signal.as_deref().map_or(DEFAULT_STOP_SIGNAL, stop_signal_number)))
        .mount(&Mount::ROOT)
        .network(Network::Dhcp);
    for port in config.exposed_ports.iter().filter_map(|p| exposed_port(p)) {
        record = record.port(port);
    }
    record.build().map_err(|error| {
        Diagnostic::error("invalid-configuration", format!("the image's configuration cannot be handed to the kernel: {error}"))
            .help("arguments, variables and paths must not contain a NUL byte")
    })
}

#[cfg(test)]
mod tests {
    use ukc_boot_record::BootRecord;

    use super::*;

    fn facts() -> Facts {
        let json = serde_json::json!({
            "program": {"path": "/bin/app", "argv": ["app", "-v"], "directory": "/srv", "scripts": [], "executable": "/bin/app"},
            "user": {"uid": 33, "gid": 34, "groups": [44], "home": "/var/www"},
            "objects": [], "syscalls": {}, "unknown": [], "dropped": [], "rules": [],
            "features": {"runtimes": [], "writable_code": [], "executable_stack": [], "threads": [], "network": [], "legacy_entries": []},
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_record_says_what_docker_would_run() {
        let mut config = ImageConfig { stop_signal: Some("SIGQUIT".into()), ..ImageConfig::default() };
        config.set_env("A", "1");
        config.exposed_ports.extend(["80/tcp".to_owned(), "53/udp".to_owned(), "x/tcp".to_owned()]);
        let bytes = boot_record(&config, &facts()).unwrap();
        let record = BootRecord::parse(&bytes).unwrap();
        assert_eq!(record.program, b"/bin/app");
        assert_eq!(record.args().collect::<Vec<_>>(), [b"app".as_slice(), b"-v"]);
        let env: Vec<_> = record.env().map(|e| String::from_utf8_lossy(e).into_owned()).collect();
        assert_eq!(env, [&format!("PATH={DEFAULT_PATH}"), "HOSTNAME=localhost", "A=1", "HOME=/var/www"]);
        assert_eq!((record.cwd, record.uid, record.gid), (b"/srv".as_slice(), 33, 34));
        assert_eq!(record.groups().collect::<Vec<_>>(), [44]);
        assert_eq!(record.stop_signal, 3);
        assert_eq!(record.ports().map(|p| p.port).collect::<Vec<_>>(), [53, 80]);
        assert_eq!(record.mounts().next(), Some(Mount::ROOT));
    }

    #[test]
    fn the_image_wins_over_defaults() {
        let mut config = ImageConfig::default();
        config.set_env("HOME", "/h");
        config.set_env("PATH", "/p");
        assert_eq!(environment(&config, "/root"), ["HOSTNAME=localhost", "HOME=/h", "PATH=/p"]);
        config.set_env("HOME", "");
        assert_eq!(environment(&config, "/root"), ["HOSTNAME=localhost", "PATH=/p", "HOME=/root"]);
    }

    #[test]
    fn a_nul_is_refused_with_a_sentence() {
        let mut config = ImageConfig::default();
        config.set_env("A", "x\0y");
        assert_eq!(boot_record(&config, &facts()).unwrap_err().name, "invalid-configuration");
    }
}
