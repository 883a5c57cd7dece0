//! Crossings: templates that the router cannot hold together, such as `/a/{name}.json` and `/a/v{version}`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use http::Method;

use super::super::route::{Host, Settings};
use super::super::routes::served;
use super::super::shape::{is_open, shapes};
use crate::problem::Key;
use crate::setting::Check;

/// Notes a problem at each route whose path cannot stand beside that of a route before it.
///
/// Templates that one tree holds are held by each tree of some of them. So all are put into one first; only if that
/// fails, every tree of the routing table is built as it will be to serve: one for each host and method.
pub fn refuse(routes: &[(Key, Arc<Settings>)], check: &Check<'_>) {
    if crossing(routes.iter()).next().is_none() {
        return;
    }
    for of_host in by_host(routes) {
        for method in methods(&of_host) {
            let in_tree = of_host.iter().copied().filter(|(_, route)| {
                let any_method = route.matches.methods.is_empty();
                any_method || method.as_ref().is_some_and(|method| served(&route.matches).contains(method))
            });
            for (key, with) in crossing(in_tree) {
                let what = format!("the router cannot hold it beside {with}");
                let help = "let them part at a literal segment, or write the parameter as the whole segment";
                check.wrong(&key.child("match").child("path"), what, help);
            }
        }
    }
}

/// Puts routes into a tree: those that it cannot hold, each with the route or the template that stands in its way.
fn crossing<'a>(
    routes: impl Iterator<Item = &'a (Key, Arc<Settings>)>,
) -> impl Iterator<Item = (&'a Key, String)> {
    let (mut open, mut closed) = (matchit::Router::new(), matchit::Router::new());
    let mut known: HashMap<String, &Key> = HashMap::new();
    routes.filter_map(move |(key, route)| {
        for (shape, _) in shapes(&route.matches.path) {
            if known.contains_key(&shape) {
                continue;
            }
            let tree = if is_open(&shape) { &mut open } else { &mut closed };
            if let Err(matchit::InsertError::Conflict { with }) = tree.insert(shape.clone(), ()) {
                return Some((key, known.get(&with).map_or(with, ToString::to_string)));
            }
            known.insert(shape, key);
        }
        None
    })
}

/// The routes of each host that has trees of its own, and those of any other.
fn by_host(routes: &[(Key, Arc<Settings>)]) -> Vec<Vec<&(Key, Arc<Settings>)>> {
    let mut groups = vec![Vec::new()];
    let mut places: HashMap<&Host, usize> = HashMap::new();
    for entry in routes {
        let hosts = &entry.1.matches.hosts;
        if hosts.is_empty() {
            groups[0].push(entry);
        }
        for host in hosts {
            let place = *places.entry(host).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[place].push(entry);
        }
    }
    groups
}

/// The methods that have a tree of their own, and any other.
fn methods(routes: &[&(Key, Arc<Settings>)]) -> Vec<Option<Method>> {
    let named: BTreeSet<String> = routes
        .iter()
        .flat_map(|(_, route)| served(&route.matches))
        .map(|method| method.to_string())
        .collect();
    let named = named.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok());
    [None].into_iter().chain(named.map(Some)).collect()
}
