//! `docker-registry` as a child process.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::token::TokenServer;

/// Who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody everything.
    Open,
    /// Whoever knows user and password.
    Basic { user: &'static str, password: &'static str },
    /// Whoever has a token of a token server, which gives out those for reading to everybody and those for writing to whoever knows user and password.
    Token { user: &'static str, password: &'static str },
}

/// A registry on the loopback.
pub struct Registry {
    child: Child,
    port: u16,
    dir: TempDir,
    token: Option<TokenServer>,
}

/// Starting takes well under a second.
const PATIENCE: Duration = Duration::from_secs(20);

impl Registry {
    /// Starts an open registry.
    pub fn start() -> Registry {
        Registry::with(Access::Open, None)
    }

    /// Starts a registry, with TLS if there is a directory to put `ca.crt` into.
    pub fn with(access: Access, tls: Option<&Path>) -> Registry {
        need("docker-registry", "docker-registry");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let root = dir.path();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  delete:\n    enabled: true\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:{port}\n",
            root.join("data").display()
        );
        if let Some(certificates) = tls {
            let (authority, authority_key) = certificate(root);
            let (certificate, key) = signed(root, &authority, &authority_key);
            fs::create_dir_all(certificates).expect("the directory of certificates");
            fs::copy(&authority, certificates.join("ca.crt")).expect("the certificate");
            config += &format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
        }
        let mut token = None;
        match access {
            Access::Open => {}
            Access::Basic { user, password } => {
                need("htpasswd", "apache2-utils");
                let line = run(Command::new("htpasswd").args(["-Bbn", user, password]));
                fs::write(root.join("htpasswd"), line).expect("the password file");
                config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", root.join("htpasswd").display());
            }
            Access::Token { user, password } => {
                let (certificate, key) = certificate(root);
                let server = TokenServer::start(&certificate, &key, user, password);
                config += &format!(
                    "auth:\n  token:\n    realm: http://127.0.0.1:{}/token\n    service: test-registry\n    issuer: test-issuer\n    rootcertbundle: {}\n",
                    server.port(),
                    certificate.display()
                );
                token = Some(server);
            }
        }
        let file = root.join("config.yml");
        fs::write(&file, config).expect("the configuration");
        let log = File::create(root.join("log")).expect("the log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let mut registry = Registry { child, port, dir, token };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(registry.dir.path().join("log")).unwrap_or_default();
            if let Ok(Some(status)) = registry.child.try_wait() {
                panic!("docker-registry ended with {status}: {}", log());
            }
            assert!(Instant::now() < until, "docker-registry does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        registry
    }

    /// Returns its name: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the directory of its files, for tests that damage them.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data/docker/registry/v2")
    }

    /// Returns the file of a blob, `sha256:…`.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
        self.data().join("blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// Returns what the token server was asked for, in order.
    pub fn tokens(&self) -> Vec<String> {
        self.token.as_ref().map(TokenServer::seen).unwrap_or_default()
    }

    /// Ends it; it can be told from one that never was only by its port.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end();
    }
}

/// Makes a certificate for 127.0.0.1 that an authority signs: rustls does not take an authority's own as a server's.
fn signed(dir: &Path, authority: &Path, authority_key: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key, request, extensions) =
        (dir.join("server.pem"), dir.join("server.key"), dir.join("server.csr"), dir.join("extensions"));
    fs::write(&extensions, "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n").expect("the extensions");
    let openssl = |arguments: &[&str], paths: &[(&str, &Path)]| {
        let mut command = Command::new("openssl");
        command.args(arguments);
        for (flag, path) in paths {
            command.arg(flag).arg(path);
        }
        run(&mut command);
    };
    openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server"], &[("-keyout", &key), ("-out", &request)]);
    openssl(
        &["x509", "-req", "-days", "2", "-set_serial", "7"],
        &[("-in", &request), ("-CA", authority), ("-CAkey", authority_key), ("-extfile", &extensions), ("-out", &certificate)],
    );
    (certificate, key)
}

/// Makes a certificate that signs itself.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    need("openssl", "openssl");
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-addext"])
        .args(["subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    (certificate, key)
}

/// Returns a port that nobody has.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// Fails with a sentence when a program is missing.
pub fn need(program: &str, package: &str) {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).any(|dir| dir.join(program).is_file());
    assert!(found, "this test needs `{program}`: `make packages` installs it, or `apt-get install {package}`");
}

/// Runs a command to its end and returns its output; one that fails fails the test.
pub fn run(command: &mut Command) -> String {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let mut err = child.stderr.take().expect("piped");
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    let mut out = vec![];
    child.stdout.take().expect("piped").read_to_end(&mut out).expect("its output");
    let status = child.wait().expect("its end");
    let errors = errors.join().expect("its errors");
    assert!(status.success(), "{command:?}: {status}: {errors}");
    let _ = std::io::stderr().flush();
    String::from_utf8(out).expect("text")
}
