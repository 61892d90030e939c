//! Archives that ADD unpacks.

use std::path::{Path, PathBuf};

use ukc_diagnostics::Diagnostic;
use ukc_oci::tar::{Whiteouts, changes_of_file};
use ukc_oci::{Compression, OciError, is_archive, unpack_to_store};
use ukc_rootfs::{Content, Kind, NodeId, Tree};

use super::{Run, conflict};
use crate::copy::{Conflict, Rules, make_dirs};
use crate::graph::{CopyOp, CopySource};
use crate::lower::image_problem;

impl Run<'_> {
    /// Unpacks an archive of ADD; false when the source is none.
    pub(super) fn unpack(
        &self,
        op: &CopyOp,
        source: &CopySource,
        tree: &Tree,
        id: NodeId,
        target: &mut Tree,
        rules: &Rules,
    ) -> Result<bool, Box<Diagnostic>> {
        let Kind::File(Content::Host { path: host, offset: 0, .. }) = &tree.node(id).kind else { return Ok(false) };
        let problem = |e: &OciError| Box::new(image_problem(e, source.span));
        if !is_archive(host).map_err(|e| problem(&e))? {
            return Ok(false);
        }
        let what = format!("the archive `{}`", source.path);
        let plain = self.plain_archive(host).map_err(|e| problem(&e))?;
        let mut changes = changes_of_file(&plain, &what, Whiteouts::Literal, self.store).map_err(|e| problem(&e))?;
        if let Some((uid, gid)) = rules.owner {
            for change in &mut changes {
                if let ukc_rootfs::Action::Put(meta, _) = &mut change.action {
                    (meta.uid, meta.gid) = (uid, gid);
                }
            }
        }
        make_dirs(target, op.dest.as_bytes(), rules).map_err(|c| conflict(&c, op, source))?;
        let dest = target
            .resolve_for_creation(op.dest.as_bytes())
            .map_err(|_| conflict(&Conflict::LinkLoop(op.dest.clone().into()), op, source))?;
        target.apply(&dest, changes, Some(rules.origin)).map_err(|error| problem(&OciError::Apply { archive: what, error }))?;
        Ok(true)
    }

    /// Returns the archive uncompressed; a plain one is used where it is.
    fn plain_archive(&self, host: &Path) -> Result<PathBuf, OciError> {
        let compression = Compression::of_file(host).map_err(|error| OciError::Read { path: host.to_owned(), error })?;
        match compression {
            Compression::Plain => Ok(host.to_owned()),
            _ => unpack_to_store(self.store, host),
        }
    }
}
