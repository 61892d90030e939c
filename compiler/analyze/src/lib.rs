//! Root file tree to facts: closure and system calls.
