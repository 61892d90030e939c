//! Plan and module archive to kernel ELF.
