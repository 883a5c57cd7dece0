//! tracegate: a tracing-aware reverse-proxy API gateway.

pub mod admin;
pub mod commands;
pub mod demo;
pub mod failure;
pub mod gateway;
pub mod http;
pub mod listener;
pub mod net;
pub mod problem;
pub mod setting;
pub mod telemetry;
pub mod upstream;
pub mod view;
