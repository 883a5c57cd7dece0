//! HTTP on one page.

pub mod file;
pub mod route;
