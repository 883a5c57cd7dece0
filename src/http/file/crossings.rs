//! Crossings: templates that the router cannot hold together, such as `/a/{name}.json` and `/a/v{version}`.

use std::collections::{BTreeSet, HashMap};

use http::Method;

use super::super::route::{Host, Settings};
use super::super::routes::served;
use super::super::shape::{is_open, shapes};
use crate::problem::Key;
use crate::setting::Check;

/// Notes a problem at each route whose path cannot stand beside that of a route before it.
///
/// Every tree of the routing table is built as it will be to serve: one for each host and method.
pub fn refuse(routes: &[(Key, Settings)], check: &Check<'_>) {
    for host in hosts(routes) {
        for method in methods(routes) {
            let in_tree = routes.iter().filter(|(_, route)| {
                let matches = &route.matches;
                let same_host = host.map_or(matches.hosts.is_empty(), |host| matches.hosts.contains(host));
                let any_method = matches.methods.is_empty();
                same_host
                    && (any_method || method.as_ref().is_some_and(|method| served(matches).contains(method)))
            });
            refuse_in_tree(in_tree, check);
        }
    }
}

fn refuse_in_tree<'a>(tree: impl Iterator<Item = &'a (Key, Settings)>, check: &Check<'_>) {
    let (mut open, mut closed) = (matchit::Router::new(), matchit::Router::new());
    let mut known: HashMap<String, &Key> = HashMap::new();
    for (key, route) in tree {
        for (shape, _) in shapes(&route.matches.path) {
            if known.contains_key(&shape) {
                continue;
            }
            let router = if is_open(&shape) { &mut open } else { &mut closed };
            if let Err(matchit::InsertError::Conflict { with }) = router.insert(shape.clone(), ()) {
                let other = known.get(&with).map_or(with, ToString::to_string);
                let what = format!("the router cannot hold it beside {other}");
                let help = "let them part at a literal segment, or write the parameter as the whole segment";
                check.wrong(&key.child("match").child("path"), what, help);
                break;
            }
            known.insert(shape, key);
        }
    }
}

/// The hosts that have a tree of their own, and any other.
fn hosts(routes: &[(Key, Settings)]) -> Vec<Option<&Host>> {
    let mut hosts = vec![None];
    for host in routes.iter().flat_map(|(_, route)| &route.matches.hosts) {
        if !hosts.contains(&Some(host)) {
            hosts.push(Some(host));
        }
    }
    hosts
}

/// The methods that have a tree of their own, and any other.
fn methods(routes: &[(Key, Settings)]) -> Vec<Option<Method>> {
    let named: BTreeSet<String> = routes
        .iter()
        .flat_map(|(_, route)| served(&route.matches))
        .map(|method| method.to_string())
        .collect();
    let named = named.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok());
    [None].into_iter().chain(named.map(Some)).collect()
}
