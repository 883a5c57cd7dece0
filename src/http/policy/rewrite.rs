//! Changes the path on its way to the upstream.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::Uri;
use http::uri::PathAndQuery;
use tower::Service;

use crate::failure::{Detail, Failure, Reason};
use crate::http::exchange::{Parameters, Request, Response};
use crate::http::route::{Rewrite as Rule, Settings};
use crate::http::shape::parameter_names;

/// How the path changes.
#[derive(Debug, Clone)]
pub(super) struct Layer(Arc<Change>);

#[derive(Debug)]
enum Change {
    StripPrefix(Box<str>),
    Template(Vec<Piece>),
}

/// A piece of a template.
#[derive(Debug)]
enum Piece {
    Text(Box<str>),
    /// The path parameter at this place of the route's own template.
    Parameter(usize),
}

/// The service that rewrites.
#[derive(Debug, Clone)]
pub(super) struct Rewrite<S> {
    inner: S,
    change: Arc<Change>,
}

impl Layer {
    /// The layer, if the route changes the path at all.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let change = match &settings.rewrite {
            Rule::Keep => return None,
            Rule::StripPrefix(prefix) => Change::StripPrefix(prefix.clone()),
            Rule::Template(template) => {
                Change::Template(pieces(template, &parameter_names(&settings.matches.path)))
            }
        };
        Some(Self(Arc::new(change)))
    }
}

fn pieces(template: &str, names: &[&str]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        pieces.push(Piece::Text(text.into()));
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        let name = name.trim_start_matches('*');
        pieces.extend(names.iter().position(|known| *known == name).map(Piece::Parameter));
        rest = after;
    }
    pieces.push(Piece::Text(rest.into()));
    pieces
}

impl Change {
    fn apply(&self, uri: &Uri, parameters: &Parameters) -> Option<Uri> {
        let path = match self {
            Self::StripPrefix(prefix) => {
                let rest = uri.path_and_query()?.as_str().strip_prefix(&**prefix)?;
                if rest.starts_with('/') {
                    return Some(Uri::from(PathAndQuery::try_from(rest).ok()?));
                }
                // the bare prefix, perhaps with a query
                return Some(Uri::from(PathAndQuery::try_from(format!("/{rest}")).ok()?));
            }
            Self::Template(pieces) => pieces.iter().fold(String::new(), |mut path, piece| {
                path.push_str(match piece {
                    Piece::Text(text) => text,
                    Piece::Parameter(index) => parameters.get(*index).map_or("", |value| value),
                });
                path
            }),
        };
        let target = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        Some(Uri::from(PathAndQuery::try_from(target).ok()?))
    }
}

impl<S> tower::Layer<S> for Layer {
    type Service = Rewrite<S>;

    fn layer(&self, inner: S) -> Rewrite<S> {
        Rewrite { inner, change: Arc::clone(&self.0) }
    }
}

impl<S: Service<Request, Response = Response, Error = Failure>> Service<Request> for Rewrite<S> {
    type Response = Response;
    type Error = Failure;
    type Future = Either<S::Future, std::future::Ready<Result<Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let Some(uri) = self.change.apply(&request.head.uri, &request.parameters) else {
            let failure = Failure::new(Reason::BadRequest).detail(Detail::InvalidPath);
            return Either::Right(std::future::ready(Err(failure)));
        };
        request.head.uri = uri;
        Either::Left(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::{Change, pieces};

    #[test]
    fn the_path_changes_and_the_query_stays() {
        let strip = Change::StripPrefix("/shop".into());
        let template = Change::Template(pieces("/v2/{id}/lines/{*rest}", &["id", "rest"]));
        let parameters = vec!["42".into(), "a/b".into()];
        for (change, target, expected) in [
            (&strip, "/shop/orders?x=1", "/orders?x=1"),
            (&strip, "/shop/", "/"),
            (&strip, "/shop", "/"),
            (&strip, "/shop?x=1", "/?x=1"),
            (&template, "/orders/42/a/b?x=%20", "/v2/42/lines/a/b?x=%20"),
        ] {
            let target: Uri = target.parse().expect("a target");
            let changed = change.apply(&target, &parameters).expect("a path");
            assert_eq!(changed.to_string(), expected);
        }
    }
}
