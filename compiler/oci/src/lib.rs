//! OCI layouts, layers and the content store.
