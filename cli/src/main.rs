//! The `ukc` binary.
fn main() {}
