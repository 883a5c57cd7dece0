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

use http::HeaderMap;
use tower::Layer;
use tower::util::{BoxCloneSyncService, Either};

use super::auth::{Access, Settings as Rule};
use super::forward::Forward;
use super::maintenance::Switched;
use super::rate_limit::{self as limits, Limiter};
use super::respond::Respond;
use super::route::{AttributeSource, Rewrite, Settings, Stack};
use crate::telemetry::Handle;

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

/// The policies of a route in the order of [`stack`], outermost first: the key of each that is in it, and what it does.
pub fn told(settings: &Settings, limits: &[limits::Settings], rules: &[Rule]) -> Vec<(&'static str, String)> {
    let shaping = &settings.shaping;
    let limit = |after_auth: bool| {
        let named = |name: &str| limits.iter().find(|limit| *limit.name == *name);
        let asked = settings.rate_limits.iter().filter_map(|name| named(name));
        let asked = asked.filter(move |limit| limit.needs_identity() == after_auth);
        asked.map(|limit| ("rate_limit", limit.told())).collect::<Vec<_>>()
    };
    let mut told = Vec::new();
    told.extend(shaping.compression.as_ref().map(|compression| ("compression", compression.told())));
    let attributes = settings.attributes.iter();
    told.extend(attributes.map(|(key, source)| ("attributes", format!("{key} from {}", source.told()))));
    told.extend(shaping.cors.as_ref().map(|cors| ("cors", cors.told())));
    let retry_after = shaping.maintenance.retry_after;
    let maintenance = format!("every request is answered 503, Retry-After {retry_after}");
    told.extend(shaping.maintenance.enabled.then_some(("maintenance", maintenance)));
    let https = "clients without TLS are sent to the same with it".to_owned();
    told.extend(shaping.https_redirect.as_ref().map(|_| ("https_redirect", https)));
    told.extend(settings.addresses.as_ref().map(|addresses| ("addresses", addresses.told())));
    told.extend(limit(false));
    let named = settings.auth.iter().filter_map(|name| rules.iter().find(|rule| rule.name == *name));
    let named = named.map(Rule::told).collect::<Vec<_>>().join(", ");
    told.extend((!named.is_empty()).then(|| ("auth", format!("any of {named} lets it pass"))));
    told.extend(limit(true));
    told.extend(settings.body_bytes.map(|bytes| ("limits.body", format!("at most {bytes} bytes"))));
    let rules = &shaping.request_rules;
    told.extend((!rules.is_empty()).then(|| ("headers.request", rules.told())));
    told.extend(match &settings.rewrite {
        Rewrite::Keep => None,
        Rewrite::StripPrefix(prefix) => Some(("strip_prefix", prefix.to_string())),
        Rewrite::Template(template) => Some(("rewrite_path", template.to_string())),
    });
    told
}

/// States the business attributes that the request tells, as their layer does.
pub(super) fn state_attributes(
    settings: &Settings,
    parameters: &[Box<str>],
    headers: &HeaderMap,
    handle: &Handle,
) {
    if let Some(layer) = attributes::Layer::new(settings) {
        layer.read_request(parameters, headers, handle);
    }
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
