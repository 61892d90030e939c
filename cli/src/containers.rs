//! `-o type=oci|docker|tar|local|registry`: the result of a build as docker would have it, without a kernel.

use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use ukc_driver::oci::Reference;
use ukc_driver::oci::Store;
use ukc_driver::oci::registry::Registries;
use ukc_driver::output::{Output, OutputKind};
use ukc_driver::{Container, ContainerImage, said};

use crate::build::write_failure;
use crate::interrupt::Interrupt;
use crate::report::{self, Failure, NETWORK};

/// What a build's metadata file says of a container image, as BuildKit has it.
#[derive(Debug, Default)]
pub struct Metadata {
    /// The image's id: the digest of its configuration.
    pub config: Option<String>,
    /// Digest of what stands for the whole.
    pub digest: Option<String>,
    /// Its names.
    pub names: Vec<String>,
}

impl Metadata {
    /// Returns the document.
    pub fn to_json(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (key, value) in [("containerimage.config.digest", &self.config), ("containerimage.digest", &self.digest)] {
            out.extend(value.as_ref().map(|v| (key.to_owned(), json!(v))));
        }
        if !self.names.is_empty() {
            out.insert("image.name".to_owned(), json!(self.names.join(",")));
        }
        Value::Object(out)
    }
}

/// Writes a container's outputs.
pub struct Writer<'a> {
    /// What was built.
    pub container: &'a Container,
    /// `--tag`.
    pub tags: &'a [String],
    /// Fetches the base's layers, and takes what is sent.
    pub registries: Registries,
    /// The content store.
    pub store: &'a Path,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
}

impl Writer<'_> {
    /// Writes one output; what is learnt of the image goes to `metadata`.
    pub fn write(&self, output: &Output, metadata: &mut Metadata) -> Result<(), Failure> {
        match output.kind {
            OutputKind::Tar => self.stream(output, |out| self.container.write_tar(out)),
            OutputKind::Local => {
                let dir = output.path().expect("a directory has a path");
                let written = self.container.tree.write_to(dir, &|| self.interrupt.is_set());
                let written = written.map_err(|(path, e)| write_failure(&e, &path, self.interrupt))?;
                if written.left_out > 0 {
                    report::warning(&format!("{} device nodes are left out: only root can make them", written.left_out));
                }
                Ok(())
            }
            _ => self.image(output, metadata),
        }
    }

    /// The forms with layers.
    fn image(&self, output: &Output, metadata: &mut Metadata) -> Result<(), Failure> {
        let names = self.names(output)?;
        let store = Store::open(self.store).map_err(|e| Failure::new(e.to_string()))?;
        let image = self.container.image(output, &self.registries, &store).map_err(Failure::new)?;
        metadata.config = Some(image.config.to_string());
        metadata.digest = Some(image.bundle.digest().to_string());
        metadata.names = names.iter().map(ToString::to_string).collect();
        self.interrupt.check()?;
        match output.kind {
            OutputKind::Registry => self.send(&names, &image, metadata),
            OutputKind::Docker => {
                let layers: Vec<_> = image.bundle.blobs.iter().map(|blob| blob.digest).filter(|digest| *digest != image.config).collect();
                self.stream(output, |out| image.bundle.write_docker_archive(&names, &image.config, &layers, out))
            }
            _ if output.flag("tar").map_err(Failure::usage)? == Some(false) => {
                let dir = output.path().ok_or_else(|| Failure::usage("a layout is a directory: `dest=DIR` is missing"))?;
                image.bundle.write_layout(dir, &names).map_err(|e| write_failure(&said(&e), dir, self.interrupt))
            }
            _ => self.stream(output, |out| image.bundle.write_archive(&names, out)),
        }
    }

    fn send(&self, names: &[Reference], image: &ContainerImage, metadata: &mut Metadata) -> Result<(), Failure> {
        if names.is_empty() {
            return Err(Failure::usage("`type=registry` needs a name: `-t NAME`, or a field `name=NAME`"));
        }
        let digest = self.registries.push(names, &image.bundle).map_err(|e| Failure { status: NETWORK, message: said(&e) })?;
        metadata.digest = Some(digest.to_string());
        Ok(())
    }

    /// The names of an output: its own field, else the build's tags.
    fn names(&self, output: &Output) -> Result<Vec<Reference>, Failure> {
        let own: Vec<String> = output.field("name").iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
        let texts = if own.is_empty() { self.tags } else { &own };
        texts.iter().map(|text| text.parse().map_err(|e| Failure::usage(format!("`{text}` is no name of an image: {e}")))).collect()
    }

    /// Writes to standard output, or to a file that appears when it is whole.
    fn stream(&self, output: &Output, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<(), Failure> {
        let Some(path) = output.path() else {
            let mut out = io::BufWriter::new(io::stdout().lock());
            return write(&mut out).and_then(|()| out.flush()).map_err(|e| Failure::new(format!("cannot write to standard output: {e}")));
        };
        let failed = |e: io::Error| write_failure(&e, path, self.interrupt);
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(failed)?;
        let mut file = tempfile::Builder::new().prefix(".ukc-output-").tempfile_in(parent).map_err(failed)?;
        let mut out = io::BufWriter::new(file.as_file_mut());
        write(&mut out).and_then(|()| out.flush()).map_err(failed)?;
        drop(out);
        self.interrupt.check()?;
        // A temporary file is its maker's alone; an output is everybody's whom the umask allows.
        let mode = 0o666 & !umask();
        std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(mode)).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map(|_| ()).map_err(|e| failed(e.error))
    }
}

/// Returns the mask of this process, which can only be read by setting it.
fn umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::from_bits_retain(0o022));
    rustix::process::umask(mask);
    mask.bits()
}
