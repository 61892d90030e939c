//! Dockerfile bytes to instructions with spans.
