//! Handles of metric series, kept beside what they are labelled with: filled on first use, found without a lookup.

use std::sync::OnceLock;

/// The series of one route.
#[derive(Debug, Default)]
pub struct RouteSeries {
    _table: OnceLock<()>,
}

/// The series of one endpoint.
#[derive(Debug, Default)]
pub struct EndpointSeries {
    _table: OnceLock<()>,
}
