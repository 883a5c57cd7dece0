//! Sentences about the gateway, told from outside: real sockets, an origin, a collector, clients.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(unreachable_pub, reason = "support reads like a library of its own")]

mod clients;
mod errors;
mod forwarding;
mod lifecycle;
mod metrics;
mod orders;
mod panics;
mod privacy;
mod process;
mod reasons;
mod routing;
mod structure;
mod support;
mod tls;
mod tracing;
mod upstreams;
