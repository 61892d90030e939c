//! What `image.json` says, from what the stages found.

use sha2::{Digest as _, Sha256};
use ukc_analyze::Facts;
use ukc_build::{Graph, Op};
use ukc_image_json::{
    Digest, FORMAT, FileCapabilities, Files, Guest, GuestKind, Handling, Image, Input, InputKind, Kernel, Module, Package, Port, Program,
    Syscall, User, VERSION,
};
use ukc_link::Linked;
use ukc_rootfs::{ImageConfig, Kind, NodeId, Tree, surface};
use ukc_select::{ModuleReason, Plan, Verdict};

use crate::{Request, guest, record};

/// Memory that the guest needs beside the kernel and the root file system to start a program: page tables, stacks, the program's own pages.
pub const MEMORY_BASE_BYTES: u64 = 4 << 20;

/// Returns the inputs that are known once the graph is: the Dockerfile and the base images, each once.
pub fn inputs(request: &Request, graph: &Graph) -> Vec<Input> {
    let mut inputs = vec![input(InputKind::Dockerfile, file_name(&request.dockerfile_name), &request.dockerfile)];
    for step in &graph.steps {
        if let Op::Image { reference, image, .. } = &step.op {
            let digest = Digest::from_sha256(&image.manifest_digest.0);
            let input = Input { kind: InputKind::Image, name: reference.clone(), digest };
            if !inputs.contains(&input) {
                inputs.push(input);
            }
        }
    }
    inputs
}

/// Returns the input that the kernel is linked from.
pub fn kernel_input(archive: &[u8]) -> Input {
    input(InputKind::Kernel, "libos", archive)
}

fn input(kind: InputKind, name: &str, bytes: &[u8]) -> Input {
    Input { kind, name: name.to_owned(), digest: Digest::from_sha256(&Sha256::digest(bytes).into()) }
}

/// The document must not depend on where the build happened.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns the document without what only writing finds out.
pub fn document(
    config: &ImageConfig,
    tree: &Tree,
    facts: &Facts,
    plan: &Plan,
    verdict: &Verdict,
    kernel: &Linked,
    inputs: Vec<Input>,
) -> Image {
    let module_of = |number: u32| plan.handlers.iter().find(|h| h.nr == number).map(|h| h.module.clone());
    let syscalls = facts.syscalls.iter().map(|(&number, call)| {
        let module = module_of(number);
        let handling = if module.is_some() { Handling::Linked } else { Handling::Absent };
        Syscall { number, name: call.name.clone(), handling, module }
    });
    let stats = &kernel.stats;
    let surface = surface(tree);
    Image {
        format: FORMAT.to_owned(),
        version: VERSION,
        program: Program {
            path: facts.program.path.clone(),
            argv: facts.program.argv.clone(),
            command_at: config.entrypoint.as_ref().map_or(0, Vec::len),
            env: record::environment(config, &facts.user.home),
            cwd: facts.program.directory.clone(),
            user: User { name: config.user.clone(), uid: facts.user.uid, gid: facts.user.gid, groups: facts.user.groups.clone() },
            stop_signal: config.stop_signal.clone().unwrap_or_else(|| "SIGTERM".to_owned()),
        },
        guest: Guest { kind: GuestKind::Unikernel, reasons: guest::reasons(verdict) },
        kernel: Kernel {
            len_bytes: kernel.elf.len() as u64,
            text_bytes: stats.text_bytes,
            rodata_bytes: stats.rodata_bytes,
            data_bytes: stats.data_bytes,
            bss_bytes: stats.bss_bytes,
        },
        modules: plan
            .modules
            .iter()
            .map(|m| Module { name: m.name.clone(), reasons: m.reasons.iter().map(ModuleReason::text).collect() })
            .collect(),
        syscalls: syscalls.collect(),
        files: Files {
            count: tree.len() as u64,
            len_bytes: content_bytes(tree),
            setuid: surface.setuid,
            capabilities: surface.capabilities.into_iter().map(|(path, names)| FileCapabilities { path, names }).collect(),
        },
        packages: surface.packages.into_iter().map(|(name, version)| Package { name, version }).collect(),
        ports: config.exposed_ports.iter().filter_map(|p| Port::try_from(p.clone()).ok()).collect(),
        volumes: config.volumes.iter().cloned().collect(),
        memory_floor_bytes: MEMORY_BASE_BYTES + stats.text_bytes + stats.rodata_bytes + stats.data_bytes + stats.bss_bytes,
        inputs,
        artefacts: vec![],
    }
}

/// Returns the bytes in regular files, each once however many names it has.
fn content_bytes(tree: &Tree) -> u64 {
    let mut ids = std::collections::BTreeSet::<NodeId>::new();
    tree.walk(&mut |_, id| {
        ids.insert(id);
    });
    let len = |id: &NodeId| if let Kind::File(content) = &tree.node(*id).kind { content.len_bytes() } else { 0 };
    ids.iter().map(len).sum()
}
