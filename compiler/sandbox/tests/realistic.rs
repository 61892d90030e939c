//! Packages from the network: `apt-get update`, `apt-get install`, a compiler, several stages. Takes the machine's apt sources and certificates; says so
//! when it cannot.

mod common;

use std::path::Path;
use std::process::Command;

use common::{case, text};
use ukc_build::NamedContext;

const SOURCES: &str = "/etc/apt/sources.list.d/debian.sources";
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

#[test]
fn a_compiler_from_packages() {
    if !Path::new(SOURCES).exists() {
        eprintln!("SKIPPED: no {SOURCES}");
        return;
    }
    let mut case = case();
    let base = case.dir.path().join("debian");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/make-debian-base");
    let packages = "apt,base-files,base-passwd,bash,bsdutils,ca-certificates,coreutils,dash,debconf,debian-archive-keyring,debianutils,diffutils,dpkg,findutils,grep,gzip,\
                    hostname,init-system-helpers,libc-bin,login,mawk,ncurses-base,passwd,perl-base,sed,sysvinit-utils,tar,util-linux";
    let made = Command::new(script).arg(&base).arg(format!("--only={packages}")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    case.options.named_contexts.push(NamedContext::parse(&format!("debian:12=oci-layout://{}", base.display())).unwrap());
    if Path::new(CERTIFICATES).exists() {
        case.config.ca_bundle = Some(CERTIFICATES.into());
    }
    std::fs::copy(SOURCES, case.context().join("debian.sources")).unwrap();
    let case = case.file("src/main.c", "#include <stdio.h>\nint main(void) { puts(\"compiled\"); return 0; }\n");
    let dockerfile = "FROM debian:12 AS build\n\
        COPY debian.sources /etc/apt/sources.list.d/debian.sources\n\
        RUN --mount=type=cache,target=/var/cache/apt,sharing=locked apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*\n\
        WORKDIR /src\nCOPY src .\nRUN gcc -O2 -static -o /out main.c\n\
        FROM debian:12\nRUN groupadd -r app && useradd -r -g app -d /srv app && mkdir -p /srv/data && chown app:app /srv/data\n\
        COPY --from=build --chown=app:app /out /usr/local/bin/app\nUSER app\nWORKDIR /srv/data\nRUN app >result\n";
    let built = match case.run(dockerfile) {
        Err(_)
            if ["Temporary failure resolving", "Could not connect", "Could not resolve"].iter().any(|t| case.log.borrow().contains(t)) =>
        {
            eprintln!("SKIPPED: no network: {}", case.log.borrow());
            return;
        }
        result => result.unwrap_or_else(|e| panic!("{e}\n{}", case.log.borrow())),
    };
    assert_eq!(text(&built, "/srv/data/result"), "compiled\n");
    case.built(dockerfile);
    assert_eq!(*case.cached.borrow(), 4);
}
