//! What a program may load or start although no table in its ELF file says so. Each rule has a name, and the objects it adds carry it as their reason.
//!
//! | rule | applies when | adds |
//! |---|---|---|
//! | `nss` | glibc is loaded | `libnss_NAME.so.2` for every service in `/etc/nsswitch.conf` |
//! | `dlopen-string` | an object calls `dlopen` | libraries whose name is a string of that object and which its search finds |
//! | a row of [`EXTENSIONS`] | a program or library of that name is loaded | all shared objects below these directories |
//!
//! To teach ukc a new interpreter or server, add a row to [`EXTENSIONS`].

use ukc_rootfs::{Kind, NodeId, Tree};

/// A program or library that loads extensions from directories.
pub struct Extensions {
    /// Name of the rule.
    pub name: &'static str,
    /// The file's name starts with this.
    pub prefix: &'static str,
    /// Directories; `*` stands for any one component or part of it.
    pub directories: &'static [&'static str],
}

/// Extension directories of Debian's, Alpine's and the official images' packages.
pub const EXTENSIONS: &[Extensions] = &[
    Extensions {
        name: "python",
        prefix: "python3",
        directories: &["/usr/lib/python3*", "/usr/local/lib/python3*", "/opt/venv/lib/python3*"],
    },
    Extensions {
        name: "python",
        prefix: "libpython3",
        directories: &["/usr/lib/python3*", "/usr/local/lib/python3*", "/opt/venv/lib/python3*"],
    },
    Extensions {
        name: "perl",
        prefix: "perl",
        directories: &[
            "/usr/lib/x86_64-linux-gnu/perl*",
            "/usr/local/lib/x86_64-linux-gnu/perl*",
            "/usr/lib/perl5",
            "/usr/local/lib/perl5",
        ],
    },
    Extensions {
        name: "ruby",
        prefix: "ruby",
        directories: &["/usr/lib/ruby", "/usr/lib/x86_64-linux-gnu/ruby", "/usr/local/lib/ruby", "/var/lib/gems", "/usr/local/bundle"],
    },
    Extensions { name: "php", prefix: "php", directories: &["/usr/lib/php", "/usr/local/lib/php/extensions"] },
    Extensions {
        name: "node",
        prefix: "node",
        directories: &["/usr/lib/node_modules", "/usr/local/lib/node_modules", "/app", "/usr/src/app"],
    },
    Extensions { name: "java", prefix: "java", directories: &["/usr/lib/jvm", "/opt/java", "/usr/local/openjdk*", "/opt/jdk*"] },
    Extensions {
        name: "nginx",
        prefix: "nginx",
        directories: &["/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/etc/nginx/modules"],
    },
    Extensions { name: "apache", prefix: "apache2", directories: &["/usr/lib/apache2/modules"] },
    Extensions { name: "apache", prefix: "httpd", directories: &["/usr/local/apache2/modules", "/usr/lib/apache2"] },
    Extensions { name: "postgres", prefix: "postgres", directories: &["/usr/lib/postgresql", "/usr/local/lib/postgresql"] },
    Extensions { name: "mysql", prefix: "mysqld", directories: &["/usr/lib/mysql/plugin", "/usr/lib64/mysql/plugin"] },
    Extensions { name: "mariadb", prefix: "mariadbd", directories: &["/usr/lib/mysql/plugin"] },
    Extensions {
        name: "openssl",
        prefix: "libcrypto.so",
        directories: &[
            "/usr/lib/x86_64-linux-gnu/ossl-modules",
            "/usr/lib/x86_64-linux-gnu/engines-*",
            "/usr/lib/ossl-modules",
            "/usr/lib/engines-*",
        ],
    },
    Extensions { name: "pam", prefix: "libpam.so", directories: &["/usr/lib/x86_64-linux-gnu/security", "/lib/security"] },
    Extensions { name: "sasl", prefix: "libsasl2.so", directories: &["/usr/lib/x86_64-linux-gnu/sasl2"] },
];

/// Returns the services of nsswitch.conf(5), once each, in order; `files` and `dns` when there is no such file.
pub fn nss_services(tree: &Tree) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let text = match tree.resolve(b"/etc/nsswitch.conf").map(|f| &tree.node(f.id).kind) {
        Ok(Kind::File(content)) => content.read_all().unwrap_or_default(),
        _ => b"passwd: files\nhosts: files dns\n".to_vec(),
    };
    for line in String::from_utf8_lossy(&text).lines() {
        let line = line.split('#').next().unwrap_or("");
        let Some((_, services)) = line.split_once(':') else { continue };
        // `[NOTFOUND=return]` is an action, not a service.
        let mut in_action = false;
        for word in services.split_whitespace() {
            in_action |= word.starts_with('[');
            if !in_action && !out.iter().any(|s| s == word) {
                out.push(word.to_owned());
            }
            in_action &= !word.ends_with(']');
        }
    }
    out
}

/// Returns the shared objects (by name: `*.so`, `*.so.1`, `*.node`) below the directories that match `pattern`, with their paths.
pub fn shared_objects_below(tree: &Tree, pattern: &str) -> Vec<(Vec<u8>, NodeId)> {
    let mut dirs = vec![(Vec::new(), Tree::ROOT)];
    for component in pattern.split('/').filter(|c| !c.is_empty()) {
        let mut next = Vec::new();
        for (path, dir) in &dirs {
            for name in tree.entries(*dir).into_iter().flatten().map(|(name, _)| name) {
                if component_matches(component.as_bytes(), name)
                    && let Ok(found) = tree.resolve(&[path.as_slice(), b"/", name].concat())
                    && tree.entries(found.id).is_some()
                {
                    next.push((found.path, found.id));
                }
            }
        }
        dirs = next;
    }
    let mut out = Vec::new();
    for (path, dir) in dirs {
        below(tree, &path, dir, 0, &mut out);
    }
    out.sort();
    out.dedup();
    out
}

fn component_matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.iter().position(|&b| b == b'*') {
        Some(star) => name.starts_with(&pattern[..star]) && name[star..].ends_with(&pattern[star + 1..]),
        None => pattern == name,
    }
}

fn below(tree: &Tree, path: &[u8], dir: NodeId, depth: u32, out: &mut Vec<(Vec<u8>, NodeId)>) {
    // Directories cannot form a cycle, but a hostile tree can be deep.
    if depth > 64 {
        return;
    }
    for (name, &id) in tree.entries(dir).into_iter().flatten() {
        let child = [path, b"/", name].concat();
        match &tree.node(id).kind {
            Kind::Dir(_) => below(tree, &child, id, depth + 1, out),
            Kind::File(_) if is_shared_object_name(name) => out.push((child, id)),
            _ => {}
        }
    }
}

/// Whether a file's name is that of a shared object.
pub fn is_shared_object_name(name: &[u8]) -> bool {
    if name.ends_with(b".node") {
        return true;
    }
    let Some(at) = name.windows(3).rposition(|w| w == b".so") else { return false };
    name[at + 3..].iter().all(|b| b.is_ascii_digit() || *b == b'.')
}
