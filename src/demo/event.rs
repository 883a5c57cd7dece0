//! What the demo's parts tell it.

use super::span::Span;
use crate::telemetry::context::TraceId;

/// News.
#[derive(Debug)]
pub(super) enum Event {
    /// An export came with these spans.
    Received(Vec<Span>),
    /// The customer sent a request; the answer, if it waited for one, told this trace.
    Asked(Option<TraceId>),
}
