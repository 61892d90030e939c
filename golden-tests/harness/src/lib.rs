//! Runs the golden cases.
