//! What a route does to a request, one file a layer; the order in which they stand is in [`stack`].

mod addresses;
mod attributes;
mod auth;
mod body_limit;
mod compression;
mod https;
mod maintenance;
mod preflight;
mod rate_limit;
mod request_rules;
mod rewrite;

use std::sync::Arc;

use tower::Layer;
use tower::util::{BoxCloneSyncService, Either};

use super::auth::Access;
use super::forward::Forward;
use super::maintenance::Switched;
use super::rate_limit::Limiter;
use super::respond::Respond;
use super::route::{AttributeSource, Rewrite, Settings, Stack};

/// The stack of a route, outermost first. An absent policy is not in it. Each layer holds one `Arc`, is
/// always ready and boxes nothing.
pub fn stack(
    settings: &Settings,
    access: Access,
    limiters: &[Arc<Limiter>],
    bottom: Bottom,
    switched: Switched,
) -> Stack {
    // outside the attributes, which are read from the answer as the upstream wrote it
    let compression = compression::Layer::new(settings);
    // outside the rewrite: path parameters are those of the route's own template
    let attributes = attributes::Layer::new(settings);
    // before whatever may refuse: a browser that gets anything but "go ahead" tells its page nothing of why
    let preflight = settings.shaping.cors.clone().map(preflight::Layer);
    // before any work is done for the request
    let maintenance = maintenance::Layer::new(settings, switched);
    // before credentials are looked at: they should not have come without TLS
    let https = settings.shaping.https_redirect.clone().map(https::Layer);
    // before anything is asked of who it is
    let addresses = addresses::Layer::new(settings);
    // before anybody is verified: what this refuses costs no more than a look at a table
    let rate_limit = rate_limit::Layer::new(limiters, false);
    // before anything is read of the body
    let auth = auth::Layer::new(access);
    // by who was verified
    let identity_limit = rate_limit::Layer::new(limiters, true);
    // before anything is sent
    let limit = body_limit::Layer::new(settings);
    // innermost, with the rewrite: its placeholders are those of the client's path, and what any layer set may go
    let rules = request_rules::Layer::new(settings);
    // what is below sees the upstream's path
    let rewrite = rewrite::Layer::new(settings);
    let service = optional(rewrite, bottom);
    let service = optional(rules, service);
    let service = optional(limit, service);
    let service = optional(identity_limit, service);
    let service = optional(auth, service);
    let service = optional(rate_limit, service);
    let service = optional(addresses, service);
    let service = optional(https, service);
    let service = maintenance.layer(service);
    let service = optional(preflight, service);
    let service = optional(attributes, service);
    BoxCloneSyncService::new(optional(compression, service))
}

/// What stands below the layers.
pub type Bottom = Either<Forward, Respond>;

/// Whether one of its layers reads the parameters of the path.
pub fn reads_parameters(settings: &Settings) -> bool {
    let named = |(_, source): &(_, _)| matches!(source, AttributeSource::Path(_));
    matches!(settings.rewrite, Rewrite::Template(_))
        || settings.attributes.iter().any(named)
        || settings.shaping.reads_parameters()
}

fn optional<L: Layer<S>, S>(layer: Option<L>, service: S) -> Either<L::Service, S> {
    match layer {
        Some(layer) => Either::Left(layer.layer(service)),
        None => Either::Right(service),
    }
}
