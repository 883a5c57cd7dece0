//! Ties: two routes that would match one request equally well. Which one is meant cannot be guessed.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::route::{HeaderMatch, Host, Settings};
use super::super::shape::shapes;
use crate::problem::Key;
use crate::setting::Check;

/// Notes a problem at each route that ties with one before it.
///
/// The router prefers an exact host over a wildcard over any, then the path that is more exact segment by
/// segment, then named methods over any, then more header matches. Two routes that are equal in all of these
/// tie if one request can match both. A prefix route also matches its bare prefix, but a route for that very path is more exact.
pub fn refuse(routes: &[(Key, Arc<Settings>)], check: &Check<'_>) {
    // by template and host, each with the places of its routes
    let mut met: HashMap<(Option<String>, Option<&Host>), Vec<usize>> = HashMap::new();
    for (place, (key, route)) in routes.iter().enumerate() {
        let (shape, hosts) = (shape(&route.matches.path), &route.matches.hosts);
        let any = hosts.is_empty().then_some(None);
        let mut first = None;
        for host in hosts.iter().map(Some).chain(any) {
            let before = met.entry((shape.clone(), host)).or_default();
            let tied = before.iter().copied().find(|before| tie(route, &routes[*before].1));
            first = first.into_iter().chain(tied).min();
            before.push(place);
        }
        if let Some((other, _)) = first.map(|first| &routes[first]) {
            let what = format!("ties with {other}: both match the same requests equally well");
            let help =
                "give one of them another path, or methods, hosts or headers that the other does not have";
            check.wrong(&key.child("match").child("path"), what, help);
        }
    }
}

/// Whether two routes of one shape that share a host, or both name none, tie.
fn tie(one: &Settings, other: &Settings) -> bool {
    let (a, b) = (&one.matches, &other.matches);
    equal_or_shared(&a.methods, &b.methods) && both_hold(&a.headers, &b.headers) && listeners_meet(one, other)
}

/// The template without the names of its parameters.
fn shape(template: &str) -> Option<String> {
    shapes(template).pop().map(|(shape, _)| shape)
}

/// Whether both are "any", or one thing stands in both. "Any" never ties with something named.
fn equal_or_shared<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    (one.is_empty() && other.is_empty()) || one.iter().any(|item| other.contains(item))
}

/// Whether equally many header matches can hold at once: they do unless they want two values of one field.
fn both_hold(one: &[(http::HeaderName, HeaderMatch)], other: &[(http::HeaderName, HeaderMatch)]) -> bool {
    let exclude = |a: &HeaderMatch, b: &HeaderMatch| match (a, b) {
        (HeaderMatch::Exact(a), HeaderMatch::Exact(b)) => a != b,
        _ => false,
    };
    let excluded = |(name, wanted): &(http::HeaderName, HeaderMatch)| {
        other.iter().any(|(known, value)| known == name && exclude(value, wanted))
    };
    one.len() == other.len() && !one.iter().any(excluded)
}

fn listeners_meet(one: &Settings, other: &Settings) -> bool {
    match (&one.listeners, &other.listeners) {
        (Some(one), Some(other)) => one.iter().any(|listener| other.contains(listener)),
        _ => true,
    }
}
