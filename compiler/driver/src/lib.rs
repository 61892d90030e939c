//! The pipeline as one function.
