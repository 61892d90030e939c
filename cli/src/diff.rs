//! `ukc diff OLD NEW`: what came, went and changed between two images, and whether the policy allows it.

use std::path::Path;

use ukc_config::Config;
use ukc_diff::{Listing, Violation, compare};
use ukc_driver::image_json::{ArtefactKind, Image};

use crate::args::{DiffArgs, DiffFormat};
use crate::image_commands::find_image;
use crate::report::{self, FAILED, Failure};

/// Runs the command.
pub fn command(args: &DiffArgs, config: &Config) -> Result<u8, Failure> {
    let ((old, old_dir), (new, new_dir)) = (find_image(&args.old)?, find_image(&args.new)?);
    let listings = match args.no_files {
        true => None,
        false => Some((listing(&args.old, &old, &old_dir)?, listing(&args.new, &new, &new_dir)?)),
    };
    let comparison = compare(&old, &new, listings.as_ref().map(|(old, new)| (old, new)));
    let mut violations: Vec<Violation> = config.policies.iter().flat_map(|policy| comparison.violations(&policy.growth)).collect();
    violations.dedup();
    let text = match args.format {
        DiffFormat::Text => comparison.to_text(args.all),
        DiffFormat::Json => report::json(&serde_json::json!({"comparison": comparison, "violations": violations}))?,
        DiffFormat::Sarif => report::json(&Violation::to_sarif(&violations, &args.new, env!("CARGO_PKG_VERSION")))?,
    };
    report::output(&text)?;
    for violation in &violations {
        report::error(&violation.message);
    }
    Ok(if violations.is_empty() { 0 } else { FAILED })
}

fn listing(text: &str, image: &Image, dir: &Path) -> Result<Listing, Failure> {
    let artefact = image.artefacts.iter().find(|a| a.kind == ArtefactKind::Rootfs);
    let name =
        artefact.ok_or_else(|| Failure::new(format!("`{text}` has no root file system to look at; leave files out with --no-files")))?;
    Listing::read(&dir.join(name.name.as_str())).map_err(|e| Failure::new(format!("`{text}`: {e}; leave files out with --no-files")))
}
