//! Instructions to build graph to root file tree.
