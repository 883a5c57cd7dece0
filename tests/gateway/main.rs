//! Sentences about the gateway, told from outside: through real sockets, with an origin, a collector and clients.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(unreachable_pub, reason = "support reads like a library of its own")]

mod clients;
mod forwarding;
mod panics;
mod reasons;
mod routing;
mod structure;
mod support;
mod tracing;
mod upstreams;
