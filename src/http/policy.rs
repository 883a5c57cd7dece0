//! What a route does to a request, one file a layer; the order in which they stand is in [`stack`].

mod attributes;
mod body_limit;
mod rewrite;

use tower::Layer;
use tower::util::{BoxCloneSyncService, Either};

use super::forward::Forward;
use super::route::{AttributeSource, Rewrite, Settings, Stack};

/// The stack of a route, outermost first. An absent policy is not in it. Each layer holds one `Arc`, is
/// always ready and boxes nothing.
pub fn stack(settings: &Settings, forward: Forward) -> Stack {
    // outside the rewrite: path parameters are those of the route's own template
    let attributes = attributes::Layer::new(settings);
    // before anything is sent
    let limit = body_limit::Layer::new(settings);
    // innermost: what is below sees the upstream's path
    let rewrite = rewrite::Layer::new(settings);
    let service = optional(rewrite, forward);
    let service = optional(limit, service);
    BoxCloneSyncService::new(optional(attributes, service))
}

/// Whether one of its layers reads the parameters of the path.
pub fn reads_parameters(settings: &Settings) -> bool {
    let named = |(_, source): &(_, _)| matches!(source, AttributeSource::Path(_));
    matches!(settings.rewrite, Rewrite::Template(_)) || settings.attributes.iter().any(named)
}

fn optional<L: Layer<S>, S>(layer: Option<L>, service: S) -> Either<L::Service, S> {
    match layer {
        Some(layer) => Either::Left(layer.layer(service)),
        None => Either::Right(service),
    }
}
