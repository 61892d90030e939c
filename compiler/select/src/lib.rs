//! Facts and module catalogue to a plan.
