//! HTTP on one page.

pub mod route;
