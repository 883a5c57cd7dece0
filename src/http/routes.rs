//! The table of routes of one listener: from a request's host, path, method and header to the most specific route.
//!
//! Specificity, first difference wins: an exact host over a wildcard over any; a literal path segment over a
//! parameter over a catch-all; named methods over any; more header conditions over fewer. Routes that tie
//! are refused when the configuration is checked.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::exchange::Parameters;
use super::route::{HeaderMatch, Host, Match, Route};
use super::shape::{is_open, kinds, shapes};

/// The routes of one listener.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Box<str>, Paths>,
    /// Longest suffix first.
    wildcard: Vec<(Box<str>, Paths)>,
    any: Paths,
}

/// What a lookup found.
#[derive(Debug)]
pub enum Found {
    /// This route, with the values of its path parameters in the order of the template.
    Route(Arc<Route>, Parameters),
    /// Routes for the path, but none for the method; these methods would have one.
    OtherMethods(Vec<Method>),
    /// No route.
    Nothing,
}

impl Routes {
    /// The table of these routes.
    pub fn new(routes: impl IntoIterator<Item = Arc<Route>>) -> Self {
        let mut table = Self::default();
        for route in routes {
            let hosts = &route.matches.hosts;
            if hosts.is_empty() {
                table.any.insert(&route);
            }
            for host in hosts {
                match host {
                    Host::Exact(name) => table.exact.entry(name.clone()).or_default().insert(&route),
                    Host::Wildcard(suffix) => table.wildcard_paths(suffix).insert(&route),
                }
            }
        }
        table.wildcard.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
    }

    fn wildcard_paths(&mut self, suffix: &str) -> &mut Paths {
        let index = self.wildcard.iter().position(|(known, _)| &**known == suffix).unwrap_or_else(|| {
            self.wildcard.push((suffix.into(), Paths::default()));
            self.wildcard.len() - 1
        });
        &mut self.wildcard[index].1
    }

    /// The most specific route for a request. `host` is lower case and without port, `path` normalised.
    pub fn find(&self, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> Found {
        if let Some(found) = self.tables(host).find_map(|paths| paths.find(path, method, headers)) {
            return found;
        }
        let mut others: Vec<Method> =
            self.tables(host).flat_map(|paths| paths.methods(path, headers)).collect();
        others.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        others.dedup();
        if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
    }

    /// The tables that serve a host, the most specific first.
    fn tables(&self, host: &str) -> impl Iterator<Item = &Paths> {
        let exact = if self.exact.is_empty() { None } else { self.exact.get(host) };
        let wildcard = self.wildcard.iter().filter(move |(suffix, _)| is_under(host, suffix));
        exact.into_iter().chain(wildcard.map(|(_, paths)| paths)).chain([&self.any])
    }
}

/// Whether one or more labels stand before the suffix: `a.example.com` is under `example.com`.
fn is_under(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
}

/// The paths of one host. One tree for each method that some route names, so that the best path found in it
/// is the best for the method, too; what names no method is in every tree.
#[derive(Debug, Default)]
struct Paths {
    named: Vec<(Method, Tree)>,
    other: Tree,
    /// Routes without methods: they go into trees that are made later.
    unnamed: Vec<Arc<Route>>,
}

impl Paths {
    fn insert(&mut self, route: &Arc<Route>) {
        if route.matches.methods.is_empty() {
            self.named.iter_mut().for_each(|(_, tree)| tree.insert(route, Naming::Any));
            self.other.insert(route, Naming::Any);
            self.unnamed.push(Arc::clone(route));
        }
        for method in served(&route.matches) {
            let own = route.matches.methods.contains(&method);
            self.tree(&method).insert(route, if own { Naming::Own } else { Naming::Implied });
        }
    }

    fn tree(&mut self, method: &Method) -> &mut Tree {
        let index = self.named.iter().position(|(known, _)| known == method).unwrap_or_else(|| {
            let mut tree = Tree::default();
            self.unnamed.iter().for_each(|route| tree.insert(route, Naming::Any));
            self.named.push((method.clone(), tree));
            self.named.len() - 1
        });
        &mut self.named[index].1
    }

    fn find(&self, path: &str, method: &Method, headers: &HeaderMap) -> Option<Found> {
        let named = self.named.iter().find(|(known, _)| known == method).map(|(_, tree)| tree);
        let (route, parameters) = named.unwrap_or(&self.other).find(path, headers)?;
        Some(Found::Route(route, parameters))
    }

    fn methods(&self, path: &str, headers: &HeaderMap) -> impl Iterator<Item = Method> {
        let serves = move |tree: &Tree| tree.find(path, headers).is_some();
        self.named.iter().filter(move |(_, tree)| serves(tree)).map(|(method, _)| method.clone())
    }
}

/// The methods a route serves: those it names, and `HEAD` with `GET` (RFC 9110 section 9.3.2).
pub fn served(matches: &Match) -> Vec<Method> {
    let mut methods = matches.methods.clone();
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    methods
}

/// The routes of one host and method.
#[derive(Debug, Default)]
struct Tree {
    /// Every route.
    all: Templates,
    /// Those without header conditions: where the best path's conditions fail. Nothing but `all` if none has any.
    unconditional: Option<Templates>,
    /// Those with header conditions, each alone.
    conditional: Vec<(matchit::Router<()>, Arc<Route>)>,
}

impl Tree {
    fn insert(&mut self, route: &Arc<Route>, naming: Naming) {
        let conditions = route.matches.headers.len();
        if conditions > 0 && self.unconditional.is_none() {
            self.unconditional = Some(self.all.clone());
        }
        for (shape, written) in shapes(&route.matches.path) {
            let rank = (written, naming, conditions);
            self.all.insert(&shape, rank, route);
            if conditions == 0 {
                if let Some(unconditional) = &mut self.unconditional {
                    unconditional.insert(&shape, rank, route);
                }
            } else {
                let mut alone = matchit::Router::new();
                alone.insert(shape, ()).expect("a template is checked with the configuration");
                self.conditional.push((alone, Arc::clone(route)));
            }
        }
    }

    fn find(&self, path: &str, headers: &HeaderMap) -> Option<(Arc<Route>, Parameters)> {
        let (leaf, parameters) = self.all.at(path)?;
        let holds = |route: &Route| conditions_hold(&route.matches.headers, headers);
        if let Some((_, route)) = leaf.routes.iter().find(|(_, route)| holds(route)) {
            return Some((Arc::clone(route), values(route, &parameters)));
        }
        // the conditions of the best path fail: the best of the others
        let plain =
            self.unconditional.as_ref().and_then(|plain| plain.at(path)).and_then(|(leaf, parameters)| {
                let (_, route) = leaf.routes.first()?;
                Some((route, values(route, &parameters)))
            });
        let conditional =
            self.conditional.iter().filter(|(_, route)| holds(route)).filter_map(|(tree, route)| {
                let found = tree.at(path).ok()?;
                Some((route, values(route, &found.params)))
            });
        conditional
            .chain(plain)
            .max_by_key(|(route, _)| specificity(&route.matches))
            .map(|(route, parameters)| (Arc::clone(route), parameters))
    }
}

/// Template shapes and the routes of each. A matchit router takes no catch-all beside a parameter, so those
/// with a catch-all have a router of their own.
#[derive(Debug, Default, Clone)]
struct Templates {
    closed: matchit::Router<usize>,
    open: matchit::Router<usize>,
    leaves: Vec<Leaf>,
    known: HashMap<Box<str>, usize>,
}

/// The routes of one template shape, the most specific first.
#[derive(Debug, Clone)]
struct Leaf {
    kinds: Vec<u8>,
    routes: Vec<(Rank, Arc<Route>)>,
}

/// What decides between routes of one template shape; the greater is the more specific: whether it was
/// written so, how the method is named, how many header conditions there are.
type Rank = (bool, Naming, usize);

/// How a route names the method of its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Naming {
    /// Not at all: it serves any.
    Any,
    /// As `GET`, which serves `HEAD`, too.
    Implied,
    /// By its own name.
    Own,
}

impl Templates {
    fn insert(&mut self, shape: &str, rank: Rank, route: &Arc<Route>) {
        let index = self.known.get(shape).copied().unwrap_or_else(|| {
            let index = self.leaves.len();
            let router = if is_open(shape) { &mut self.open } else { &mut self.closed };
            router.insert(shape, index).expect("a template is checked with the configuration");
            self.known.insert(shape.into(), index);
            self.leaves.push(Leaf { kinds: kinds(shape), routes: Vec::new() });
            index
        });
        let routes = &mut self.leaves[index].routes;
        let place = routes.partition_point(|(known, _)| *known >= rank);
        routes.insert(place, (rank, Arc::clone(route)));
    }

    fn at<'path>(&self, path: &'path str) -> Option<(&Leaf, matchit::Params<'_, 'path>)> {
        let found = match (self.closed.at(path), self.open.at(path)) {
            (Ok(closed), Ok(open)) => {
                let kinds = |index: usize| &self.leaves[index].kinds;
                if kinds(*open.value) > kinds(*closed.value) { open } else { closed }
            }
            (found, Err(_)) | (Err(_), found) => found.ok()?,
        };
        Some((&self.leaves[*found.value], found.params))
    }
}

/// The parameters of the path, if the route reads them.
fn values(route: &Route, parameters: &matchit::Params<'_, '_>) -> Parameters {
    if route.reads_parameters {
        parameters.iter().map(|(_, value)| value.into()).collect()
    } else {
        Vec::new()
    }
}

fn conditions_hold(conditions: &[(http::HeaderName, HeaderMatch)], headers: &HeaderMap) -> bool {
    conditions.iter().all(|(name, condition)| match condition {
        HeaderMatch::Present => headers.contains_key(name),
        HeaderMatch::Exact(value) => headers.get_all(name).iter().any(|sent| sent == value),
    })
}

/// How specific a route is among those of its host that match the same request: segment by segment, then
/// methods, then header conditions. Greater is more specific; equal is a tie.
pub(super) fn specificity(matches: &Match) -> (Vec<u8>, bool, usize) {
    (kinds(&matches.path), !matches.methods.is_empty(), matches.headers.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::{Found, Routes};
    use crate::http::route::{HeaderMatch, Host, Match, Route};

    fn route(methods: &[Method], path: &str) -> Match {
        Match { hosts: Vec::new(), path: path.into(), methods: methods.to_vec(), headers: Vec::new() }
    }

    fn table(routes: Vec<(&str, Match)>) -> Routes {
        Routes::new(routes.into_iter().map(|(name, matches)| Arc::new(Route::for_tests(name, matches))))
    }

    fn find(table: &Routes, host: &str, method: &Method, path: &str, headers: &HeaderMap) -> String {
        match table.find(host, path, method, headers) {
            Found::Route(route, parameters) => {
                format!("{}({})", &*route.target.labels.route, parameters.join(","))
            }
            Found::OtherMethods(methods) => format!("405 {methods:?}"),
            Found::Nothing => "404".to_owned(),
        }
    }

    #[test]
    fn the_most_specific_path_that_serves_the_method_wins() {
        let table = table(vec![
            ("create", route(&[Method::POST], "/shop/orders")),
            ("read", route(&[Method::GET], "/shop/orders/{order_id}")),
            ("cancel", route(&[Method::DELETE], "/shop/orders/{id}")),
            ("latest", route(&[Method::GET], "/shop/orders/latest")),
            ("shop", route(&[], "/shop/{*rest}")),
            ("only_get", route(&[Method::GET], "/only")),
            ("own_head", route(&[Method::HEAD], "/shop/orders/latest")),
            ("two", route(&[], "/{a}/{b}")),
        ]);
        for (method, path, expected) in [
            (Method::POST, "/shop/orders", "create()"),
            (Method::GET, "/shop/orders", "shop(orders)"),
            (Method::GET, "/shop/orders/7", "read(7)"),
            (Method::HEAD, "/shop/orders/7", "read(7)"),
            (Method::DELETE, "/shop/orders/7", "cancel(7)"),
            (Method::PUT, "/shop/orders/7", "shop(orders/7)"),
            (Method::from_bytes(b"BREW").expect("a token"), "/shop/orders/7", "shop(orders/7)"),
            (Method::GET, "/shop/orders/latest", "latest()"),
            (Method::GET, "/shop/", "shop()"),
            (Method::GET, "/shop", "shop()"),
            (Method::HEAD, "/shop/orders/latest", "own_head()"),
            (Method::GET, "/shop/x", "shop(x)"),
            (Method::GET, "/mes/x", "two(mes,x)"),
            (Method::GET, "/shopping", "404"),
            (Method::GET, "/", "404"),
            (Method::POST, "/only", "405 [GET, HEAD]"),
        ] {
            assert_eq!(find(&table, "any", &method, path, &HeaderMap::new()), expected, "{method} {path}");
        }
    }

    #[test]
    fn an_exact_host_wins_over_a_wildcard_over_any() {
        let on = |hosts: &[Host]| Match { hosts: hosts.to_vec(), ..route(&[], "/{*rest}") };
        let table = table(vec![
            ("any", on(&[])),
            ("wild", on(&[Host::Wildcard("example.com".into())])),
            ("deep", on(&[Host::Wildcard("eu.example.com".into())])),
            ("exact", on(&[Host::Exact("shop.example.com".into())])),
        ]);
        for (host, expected) in [
            ("shop.example.com", "exact(x)"),
            ("mes.example.com", "wild(x)"),
            ("a.b.example.com", "wild(x)"),
            ("a.eu.example.com", "deep(x)"),
            ("example.com", "any(x)"),
            ("notexample.com", "any(x)"),
            ("", "any(x)"),
        ] {
            assert_eq!(find(&table, host, &Method::GET, "/x", &HeaderMap::new()), expected, "{host}");
        }
    }

    #[test]
    fn header_conditions_narrow_and_their_failing_falls_back_to_the_best_of_the_others() {
        let name = HeaderName::from_static("x-beta");
        let beta = HeaderMatch::Exact(HeaderValue::from_static("1"));
        let with = |path: &str, condition: HeaderMatch| Match {
            headers: vec![(name.clone(), condition)],
            ..route(&[], path)
        };
        let table = table(vec![
            ("beta", with("/a/{id}", beta)),
            ("flagged", with("/a/{*rest}", HeaderMatch::Present)),
            ("rest", route(&[], "/{*rest}")),
        ]);
        for (value, expected) in [(Some("1"), "beta(7)"), (Some("2"), "flagged(7)"), (None, "rest(a/7)")] {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(name.clone(), HeaderValue::from_static(value));
            }
            assert_eq!(find(&table, "any", &Method::GET, "/a/7", &headers), expected, "{value:?}");
        }
    }
}
