//! image.json: everything about an image.
