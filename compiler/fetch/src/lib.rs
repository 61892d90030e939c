//! What a build gets from other machines: HTTP with retries.
//!
//! - [`Http`]: requests over HTTP/1.1 and TLS, blocking, with connections kept; proxies from the environment, certificates of the machine and further ones.
//! - [`Retries`]: which failures are tried again, and when.
//!
//! What is absent: registries (that is `oci`), and any opinion about what the bytes mean. Every wait asks a [`Cancel`], so that Ctrl-C ends it.
#![forbid(unsafe_code)]

mod http;
mod retry;
mod trust;

pub use http::{Answer, Body, Http, HttpError, Method, Request, host_of, is_loopback};
pub use retry::{Again, Cancel, Failed, Retries, http_date};
pub use trust::Trust;
