//! Ties: two routes that would match one request equally well. Which one is meant cannot be guessed.

use std::collections::HashMap;

use super::super::route::{HeaderMatch, Settings};
use super::super::shape::shapes;
use crate::problem::Key;
use crate::setting::Check;

/// Notes a problem at each route that ties with one before it.
///
/// The router prefers an exact host over a wildcard over any, then the path that is more exact segment by
/// segment, then named methods over any, then more header matches. Two routes that are equal in all of these
/// tie if one request can match both. A prefix route also matches its bare prefix, but a route for that very path is more exact.
pub fn refuse(routes: &[(Key, Settings)], check: &Check<'_>) {
    let mut of_one_shape: HashMap<_, Vec<&(Key, Settings)>> = HashMap::new();
    for entry in routes {
        let (key, route) = entry;
        let before = of_one_shape.entry(shape(&route.matches.path)).or_default();
        if let Some((other, _)) = before.iter().find(|(_, other)| tie(route, other)) {
            let what = format!("ties with {other}: both match the same requests equally well");
            let help =
                "give one of them another path, or methods, hosts or headers that the other does not have";
            check.wrong(&key.child("match").child("path"), what, help);
        }
        before.push(entry);
    }
}

/// Whether two routes of one shape tie.
fn tie(one: &Settings, other: &Settings) -> bool {
    let (a, b) = (&one.matches, &other.matches);
    equal_or_shared(&a.hosts, &b.hosts)
        && equal_or_shared(&a.methods, &b.methods)
        && both_hold(&a.headers, &b.headers)
        && listeners_meet(one, other)
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
