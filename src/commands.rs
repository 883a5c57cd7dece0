//! The commands that look at a configuration without serving.

pub mod check;
