//! Sentences about the gateway, told from outside: real sockets, an origin, a collector, clients.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(unreachable_pub, reason = "support reads like a library of its own")]

mod admin;
mod admin_ways;
mod auth;
mod clients;
mod commands;
mod compression;
mod conservation;
mod context;
mod documents;
mod errors;
mod forward_auth;
mod forwarding;
mod grpc;
mod health;
mod hostile;
mod http2;
mod last_good;
mod lifecycle;
mod listeners;
mod metrics;
mod orders;
mod overload;
mod pace;
mod page;
mod panics;
mod parking;
mod parsers;
mod privacy;
mod process;
mod rate_limits;
mod reasons;
mod receivers;
mod reference;
mod reload;
mod retries;
mod routing;
mod sampling;
mod shaping;
mod split;
mod streams;
mod structure;
mod support;
mod timing;
mod tls;
mod top;
mod tracing;
mod upstreams;
mod websocket;
mod workers;
