//! One program in place: a file of a root directory, not built by us → its system calls, what the libOS makes of each, and the guest for it.
//!
//! ```text
//! FILE in ROOT ──scan──▶ Tree ──analyze──▶ Facts ──select──▶ Plan ──choose──▶ Verdict
//! ```
//!
//! The same stages that an image goes through, on a tree of what a program can load from: all of a root of its own, and of this machine's root the
//! directories where programs, libraries and their configuration lie.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ukc_analyze::{DirCache, Facts};
use ukc_diagnostics::Diagnostic;
use ukc_rootfs::{Content, ImageConfig, Kind, Meta, Node, NodeId, Tree};
use ukc_select::{Catalogue, Plan, Verdict, choose};

use crate::notes;

/// Directories of a whole system that hold what programs load; its other directories hold data, and may hold very much of it.
const SYSTEM: [&str; 9] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt"];

/// Docker's PATH for images that have none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What was found.
pub struct Checked {
    /// The analysis.
    pub facts: Facts,
    /// What the libOS would link.
    pub plan: Plan,
    /// The guest.
    pub verdict: Verdict,
}

/// Checks the program at `file`, an absolute path inside `root`, with these further arguments. Programs that a shell may start are not followed: the answer
/// is about this one.
///
/// # Errors
/// A file that is not there or no program for this machine, a missing interpreter or library.
pub fn check_program(
    root: &Path,
    file: &Path,
    arguments: &[String],
    archive: &[u8],
    cache: Option<&Path>,
) -> Result<Checked, Vec<Diagnostic>> {
    let unreadable =
        |e: io::Error| vec![Diagnostic::error("unreadable-root", format!("cannot read the root directory `{}`: {e}", root.display()))];
    let tree = scan(root, file).map_err(unreadable)?;
    let program = file.to_string_lossy().into_owned();
    let config = ImageConfig {
        entrypoint: Some(std::iter::once(program).chain(arguments.iter().cloned()).collect()),
        env: vec![("PATH".to_owned(), PATH.to_owned())],
        ..ImageConfig::default()
    };
    let cache = cache.map(DirCache::new);
    let options = ukc_analyze::Options { follows_shells: false, cache: cache.as_ref().map(|c| c as _), ..ukc_analyze::Options::default() };
    let facts = ukc_analyze::analyze(&tree, &config, &options)?;
    let (plan, verdict) = judge(&facts, archive).map_err(|problem| vec![Diagnostic::error("broken-kernel", problem)])?;
    Ok(Checked { facts, plan, verdict })
}

/// Returns what the libOS would link for these facts, and the guest that they ask for.
///
/// # Errors
/// A sentence about an archive that is broken.
pub fn judge(facts: &Facts, archive: &[u8]) -> Result<(Plan, Verdict), String> {
    let catalogue = Catalogue::from_notes(&notes::module_notes(archive)?).map_err(|e| e.to_string())?;
    let plan = ukc_select::select(facts, &catalogue, &ukc_select::Options::default()).map_err(|e| e.to_string())?;
    let verdict = choose(facts, &plan);
    Ok((plan, verdict))
}

/// Reads a root directory, or the parts of a whole system that matter to the program.
fn scan(root: &Path, file: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let is_system = root == Path::new("/");
    let mut left: Vec<(PathBuf, NodeId)> = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_wanted = !is_system || SYSTEM.iter().any(|wanted| name == *wanted);
        if is_wanted && let Some(id) = add(&mut tree, Tree::ROOT, &entry.path()) {
            left.push((entry.path(), id));
        }
    }
    // The program's own place, wherever it is: its directory whole, and the one above for libraries beside it (`$ORIGIN/../lib`).
    let mut at = Tree::ROOT;
    let mut host = root.to_owned();
    let components: Vec<&std::ffi::OsStr> = file
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    for (index, name) in components.iter().enumerate() {
        host.push(name);
        let known = tree.entries(at).and_then(|e| e.get(name.as_bytes())).copied();
        let is_new = known.is_none();
        let Some(id) = known.or_else(|| add(&mut tree, at, &host)) else { break };
        // A link leads elsewhere; what it leads to is another path.
        if !matches!(tree.node(id).kind, Kind::Dir(_)) {
            break;
        }
        at = id;
        let is_near = index + 3 >= components.len();
        if is_new && is_near {
            left.push((host.clone(), id));
        }
    }
    fill(&mut tree, left);
    Ok(tree)
}

/// Reads directories to their ends. What cannot be read is not there, as for the program.
fn fill(tree: &mut Tree, mut left: Vec<(PathBuf, NodeId)>) {
    let mut read = HashSet::new();
    while let Some((dir, id)) = left.pop() {
        if !matches!(tree.node(id).kind, Kind::Dir(_)) || !read.insert(id) {
            continue;
        }
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            // A directory on the way to the program is there already, and empty.
            let known = tree.entries(id).and_then(|e| e.get(entry.file_name().as_bytes())).copied();
            if let Some(child) = known.or_else(|| add(tree, id, &path)) {
                left.push((path, child));
            }
        }
    }
}

/// Adds a file of the host to a directory, without following links.
fn add(tree: &mut Tree, dir: NodeId, host: &Path) -> Option<NodeId> {
    let meta = fs::symlink_metadata(host).ok()?;
    let kind = if meta.is_dir() {
        Kind::Dir(BTreeMap::new())
    } else if meta.is_symlink() {
        Kind::Symlink(fs::read_link(host).ok()?.into_os_string().into_vec())
    } else if meta.is_file() {
        Kind::File(Content::Host { path: Arc::new(host.to_owned()), offset: 0, len_bytes: meta.len() })
    } else {
        return None;
    };
    let mode = (meta.permissions().mode() & 0o7777) as u16;
    let id = tree.add(Node { meta: Meta::new(mode), kind, origin: None });
    tree.link(dir, host.file_name()?.as_bytes(), id);
    Some(id)
}
