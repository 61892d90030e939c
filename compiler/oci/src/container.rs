//! A build's result as a container image, as BuildKit would make it: the base's layers as they are, one layer for each instruction that changed files.

use std::io::{self, Write};
use std::path::Path;

use ukc_rootfs::{Change, Content};

use crate::bundle::stored;
use crate::document::{CONFIG, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Descriptor, LAYER, MANIFEST, Manifest};
use crate::registry::Registries;
use crate::{Blob, Bundle, Compression, Digest, HashingWriter, Image, ImageDocument, Layer, Made, OciError, Store, tar};

/// What a container image is made of.
#[derive(Debug)]
pub struct ContainerParts<'a> {
    /// The image that it builds on.
    pub base: Option<&'a Image>,
    /// Layers above it; one without changes makes none, and its line of the history says so.
    pub changes: &'a [Vec<Change>],
    /// Configuration and history; its `diff_ids` are filled in.
    pub document: ImageDocument,
    /// How new layers are compressed: plain, gzip or zstd.
    pub compression: Compression,
    /// Of the compression; its usual one by default.
    pub level: Option<i32>,
    /// Docker's media types instead of OCI's.
    pub docker_types: bool,
    /// No time lies after this.
    pub newest: Option<i64>,
}

/// Makes the bundle of a container image. Layers of the base that only the registry has in their compressed form are fetched by `registries`.
///
/// # Errors
/// [`OciError`] of reading files, of the store, and of the registry.
pub fn container(
    parts: ContainerParts<'_>,
    registries: Option<&Registries>,
    store: &Store,
) -> Result<(Bundle, Vec<Made>, Digest), OciError> {
    let mut bundle = Bundle::default();
    let mut layers = vec![];
    for layer in parts.base.into_iter().flat_map(|image| &image.layers) {
        layers.push(base_layer(&mut bundle, parts.base.and_then(|b| b.source.as_ref()), layer, &parts, registries, store)?);
    }
    let mut document = parts.document;
    // The lines that stand for layers above the base's, in order.
    let count = parts.changes.len();
    let with_layer: Vec<usize> = (0..document.history.len()).filter(|&n| !document.history[n].empty_layer).collect();
    let own = &with_layer[with_layer.len().saturating_sub(count)..];
    for (changes, line) in parts.changes.iter().zip(own) {
        if changes.is_empty() {
            document.history[*line].empty_layer = true;
            continue;
        }
        let write = |out: &mut dyn Write| tar::write_changes(changes, parts.newest, out);
        let made = make_layer(&mut bundle, parts.compression, parts.level, parts.docker_types, store, &write)?;
        layers.push(made);
    }
    document.diff_ids = layers.iter().map(|made| made.diff_id).collect();
    let (config_type, manifest_type) = if parts.docker_types { (DOCKER_CONFIG, DOCKER_MANIFEST) } else { (CONFIG, MANIFEST) };
    let config = bundle.add_bytes(config_type, &document.to_json());
    let config_digest = config.digest.parse().expect("a digest that was computed");
    let manifest = Manifest { config, layers: layers.iter().map(|m| m.descriptor.clone()).collect(), ..Manifest::new(manifest_type) };
    let bytes = serde_json::to_vec(&manifest).expect("strings and numbers always serialise");
    bundle.add_manifest(manifest_type, bytes);
    Ok((bundle, layers, config_digest))
}

fn base_layer(
    bundle: &mut Bundle,
    source: Option<&crate::Reference>,
    layer: &Layer,
    parts: &ContainerParts<'_>,
    registries: Option<&Registries>,
    store: &Store,
) -> Result<Made, OciError> {
    let blob = match (&layer.blob, source, registries) {
        (Some(path), ..) if path.is_file() => Some(file_content(path)?),
        _ if store.contains(&layer.digest) => Some(stored(store, &layer.digest)?),
        (_, Some(reference), Some(registries)) => {
            registries.blob(reference, layer, store)?;
            Some(stored(store, &layer.digest)?)
        }
        _ => None,
    };
    let Some(content) = blob else {
        // Nobody has the compressed form: archives of docker do not.
        let tar = stored(store, &layer.diff_id)?;
        let write = |out: &mut dyn Write| io::copy(&mut tar.open()?, out).map(drop);
        return make_layer(bundle, parts.compression, parts.level, parts.docker_types, store, &write);
    };
    let media_type = if parts.docker_types { docker_type(&layer.media_type) } else { oci_type(&layer.media_type) };
    bundle.add(Blob { digest: layer.digest, content, elsewhere: source.cloned() });
    let descriptor = Descriptor { size: layer.len_bytes, digest: layer.digest.to_string(), ..Descriptor::of(&media_type, b"") };
    Ok(Made { descriptor, diff_id: layer.diff_id })
}

fn file_content(path: &Path) -> Result<Content, OciError> {
    let len_bytes = std::fs::metadata(path).map_err(|error| OciError::Read { path: path.to_owned(), error })?.len();
    Ok(Content::Host { path: path.to_owned().into(), offset: 0, len_bytes })
}

/// The same kind of layer in OCI's words.
fn oci_type(media_type: &str) -> String {
    match media_type.rsplit(['.', '+']).next() {
        Some("gzip") => format!("{LAYER}+gzip"),
        Some("zstd") => format!("{LAYER}+zstd"),
        _ => LAYER.to_owned(),
    }
}

/// The same kind of layer in docker's words; there are none for zstd, and docker takes OCI's.
fn docker_type(media_type: &str) -> String {
    match media_type.rsplit(['.', '+']).next() {
        Some("gzip") => format!("{DOCKER_LAYER}.gzip"),
        Some("zstd") => format!("{LAYER}+zstd"),
        _ => DOCKER_LAYER.to_owned(),
    }
}

/// Compresses what `write` writes into the store and adds it to the bundle.
///
/// # Errors
/// [`OciError::Write`], also for what goes wrong in `write`.
pub fn make_layer(
    bundle: &mut Bundle,
    compression: Compression,
    level: Option<i32>,
    docker_types: bool,
    store: &Store,
    write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
) -> Result<Made, OciError> {
    let fail = |error| OciError::Write { path: store.root().to_owned(), error };
    let mut blob = store.writer()?;
    let mut out = io::BufWriter::with_capacity(1 << 17, &mut blob);
    let (diff_id, ending) = match compression {
        Compression::Gzip => {
            let level = level.map_or(flate2::Compression::default(), |l| flate2::Compression::new(l.clamp(0, 9) as u32));
            let mut plain = HashingWriter::new(flate2::write::GzEncoder::new(&mut out, level));
            write(&mut plain).map_err(fail)?;
            let (encoder, diff_id) = plain.finish();
            encoder.finish().map_err(fail)?;
            (diff_id, "+gzip")
        }
        Compression::Zstd => {
            let mut plain = HashingWriter::new(zstd::stream::write::Encoder::new(&mut out, level.unwrap_or(3).clamp(1, 22)).map_err(fail)?);
            write(&mut plain).map_err(fail)?;
            let (encoder, diff_id) = plain.finish();
            encoder.finish().map_err(fail)?;
            (diff_id, "+zstd")
        }
        Compression::Plain => {
            let mut plain = HashingWriter::new(&mut out);
            write(&mut plain).map_err(fail)?;
            (plain.finish().1, "")
        }
        Compression::Bzip2 | Compression::Xz => return Err(fail(io::ErrorKind::Unsupported.into())),
    };
    out.flush().map_err(fail)?;
    drop(out);
    let digest = blob.commit()?;
    let content = stored(store, &digest)?;
    let oci = format!("{LAYER}{ending}");
    let media_type = if docker_types { docker_type(&oci) } else { oci };
    let descriptor = Descriptor { size: content.len_bytes(), digest: digest.to_string(), ..Descriptor::of(&media_type, b"") };
    bundle.add(Blob { digest, content, elsewhere: None });
    Ok(Made { descriptor, diff_id })
}
