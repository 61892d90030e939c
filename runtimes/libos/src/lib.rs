//! Builds the libOS module archive and embeds it.
