//! HTTP on one page: the order of the stages and why.
//!
//! A request meets the files in this order. [`server`] reads its head from the connection, a
//! `conversation`, or from one of its [`streams`] (or [`refuse`] answers in hyper's place) and opens the
//! operation with [`record`] and takes its places [`in_flight`], outermost, so that whatever happens below is on record. [`rescue`] turns every failure and panic into an answer (a [`page`] for whoever would [`accept`]
//! one): above it there are only answers, and each gets the [`face`] of its route ([`cors`], header [`rules`]). [`dispatch`] makes the checks that no route may skip, normalises the [`path`] once and asks the
//! table ([`routes`], by the [`shape`] of their templates) for the [`route`]. Where the route leaves it open, the upstream is drawn by its [`split`] or known by a [`sticky`] cookie. The route's [`policy`] layers change
//! the [`exchange`], whose [`identity`] one of them may verify and whose share of a [`rate_limit`] another takes, and [`forward`] at the bottom, by the route's [`plan`], picks an endpoint and tries it, and
//! others where [`retry`] says so. Each `attempt` injects [`context`] ([`headers`], [`expect`]) and sends over the
//! endpoint's [`pool`], within the time of [`timers`] and the [`headroom`] of a connection; what the [`probe`] asks beside
//! all that is no request. Or the route [`respond`]s itself. What a route changes of what passes is its [`shaping`],
//! which [`explain`] tells before anything is sent, with [`pattern`]s for texts and [`compression`] for bodies; [`maintenance`] puts it out of service. The answer comes back through the same
//! stages, its [`body`] last; a call of [`grpc`] is judged by its trailers. Where both sides agree on an [`upgrade`], the connection becomes a [`tunnel`].

pub mod accept;
mod attempt;
pub mod auth;
pub mod body;
pub mod compression;
pub mod context;
mod conversation;
pub mod cors;
pub mod dispatch;
pub mod exchange;
pub mod expect;
pub mod explain;
pub mod face;
pub mod file;
pub mod forward;
pub mod grpc;
pub mod headers;
pub mod headroom;
pub mod identity;
pub mod in_flight;
pub mod maintenance;
pub mod page;
pub mod path;
pub mod pattern;
pub mod plan;
pub mod pointer;
pub mod policy;
pub mod pool;
pub mod probe;
pub mod rate_limit;
pub mod record;
pub mod refuse;
pub mod removal;
pub mod rescue;
pub mod respond;
mod retirement;
pub mod retry;
pub mod route;
pub mod routes;
pub mod rules;
pub mod server;
pub mod shape;
pub mod shaping;
pub mod split;
pub mod sticky;
pub mod streams;
pub mod timers;
pub mod tunnel;
pub mod upgrade;
