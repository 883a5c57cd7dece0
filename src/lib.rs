//! tracegate: a tracing-aware reverse-proxy API gateway.
//!
//! It stands in front of HTTP services. For every request it continues or starts a W3C trace, finds the route,
//! forwards to one endpoint of an upstream, and says what happened: spans by OTLP, RED metrics for Prometheus,
//! one line in the access log, and the trace id to the client. The gateway does not change what passes; it
//! tells the truth about it.
//!
//! # The walk
//!
//! In the order in which a request meets the files; each stands here once.
//!
//! **Start.** `main` reads the command line. `commands` has `commands::run`, `commands::check` (problems by
//! `commands::report`, values by `commands::toml`, who can be reached by `commands::connect`), `commands::explain`
//! (`commands::explain::answer` of a request, `commands::explain::reasons`), `commands::schema`, `commands::reference`,
//! `commands::completions`, `commands::healthcheck` and `commands::token`; what goes on until a signal ends it shares
//! `commands::foreground`, with its threads (`commands::runtime`) and signals (`commands::signals`).
//!
//! **Configuration.** `gateway::file` checks what `gateway::file::source` gathers: each file
//! (`gateway::file::document`) and the environment (`gateway::file::environment`, `gateway::file::otel`), its old names
//! brought up to date by `gateway::file::renamed`, is a layer (`gateway::file::layer`), `gateway::file::merge` puts one
//! over the other, `gateway::file::effective` tells what is in force and where it was written, `gateway::file::schema`
//! what may be, and `gateway::file::tree` reads the shapes over the merged values, routes `gateway::file::apart`, one
//! after the other, if they are not `gateway::file::carried` over from before. The shapes live with their components:
//! `listener::file` (with `listener::file::tls`), `http::file` (with `http::file::template`, `http::file::leaf`,
//! `http::file::retry`, `http::file::split`, `http::file::sticky`, `http::file::shaping`, which has
//! `http::file::fields`, `http::file::cors`, `http::file::compression` and `http::file::answers`, `http::file::ties`
//! and `http::file::crossings` and `http::file::identities`), `http::auth::file` (with `http::auth::file::api_keys`,
//! `http::auth::file::jwt` of `http::auth::file::tokens`, `http::auth::file::forward` and `http::auth::file::field`),
//! `upstream::file` (with `upstream::file::resilience`), `telemetry::file` (with `telemetry::file::receivers` and
//! `telemetry::file::logstash`), `admin::file`, `net::file`. Their leaves are `setting`'s: `setting::written`,
//! `setting::leaf`, `setting::duration`, `setting::size`, `setting::count`, `setting::ratio`, `setting::address`,
//! `setting::name`, `setting::network`, `setting::one_or_many`, `setting::or_off`, `setting::secret`,
//! `setting::digest`, `setting::hash`, `setting::moment`; `setting::check` is what the constructors work with. What is
//! wrong is a `problem` at a `problem::key`, all at once. What comes out is `gateway::settings`, with what it was made
//! of, the `gateway::configuration`.
//!
//! **Gateway.** `gateway` starts, drains and owns every task; `gateway::snapshot` is all that serves requests,
//! built whole, handed out in slices by `view`. `gateway::reload` builds another one, in which what has state is
//! `gateway::kept`, keeps what was good as the `gateway::last_good`, tells the `gateway::difference`, and names
//! what waits for a `gateway::restart`; until then `gateway::overrides` may hold; what people see of it is
//! `gateway::shown`; files are watched by `net::watch`; logs are appended to by
//! `net::lines`. `gateway::reach` tries who can be reached.
//!
//! **Connection.** `listener` accepts at its `listener::address` on a `listener::bound` socket, perhaps
//! `listener::inherited`, gives the connection to a `worker`, which serves it to its end, asks a trusted `listener::proxy` who the client is, counts it `listener::per_client`, where
//! configured makes a `listener::tls::handshake` as `listener::tls` and `listener::tls::clients` have it, and makes a
//! `listener::connection`, which counts HTTP/2's `listener::frames`, bounds the client by `listener::timeouts`, shares
//! `listener::activity` with the exchanges on it and leaves when `listener::drain` says so. Whose requests are let in
//! may be a matter of `listener::addresses`.
//!
//! **Request.** `http` tells the order of the stages: `http::server` (whose connection is a
//! `http::conversation`, with `http::streams` in HTTP/2,
//! `http::retirement` of old connections, and `http::refuse` for heads that cannot be read), `http::record`,
//! `http::in_flight`, `http::rescue`, `http::dispatch` with `http::path` and `http::routes` (by `http::shape`), which
//! `http::explain` asks beforehand, the `http::route`, which an `http::split` may draw an upstream for or an
//! `http::sticky` cookie bring back to an endpoint, its `http::policy` layers `http::policy::compression` (of
//! `http::compression`), `http::policy::attributes`, `http::policy::preflight` (by its `http::cors`),
//! `http::policy::maintenance` (of `http::maintenance`), `http::policy::https`, `http::policy::addresses`,
//! `http::policy::auth`, `http::policy::rate_limit` by the `http::rate_limit`s it names (as written in
//! `http::rate_limit::file`; each an `http::rate_limit::bucket` a client in its own `http::rate_limit::table` or a
//! shared `http::rate_limit::store`, with an eye on the `http::rate_limit::crowd`), `http::policy::body_limit`,
//! `http::policy::request_rules` (`http::rules` with an `http::pattern`), `http::policy::rewrite` over an
//! `http::exchange` that may have an `http::identity`, read by an `http::pointer`, and `http::forward`, which by the
//! route's `http::plan` tries once or, where `http::retry` says so, again: each `http::attempt` with `http::headers`,
//! `http::context`, `http::expect` and `http::pool`, in the time of `http::timers` and the space of `http::headroom`,
//! until the `http::removal` of its route; or `http::respond`, where no upstream is needed. What all answers of a route
//! have in common, its `http::face`, is made of its `http::shaping`: `http::rescue` has it applied, and tells people of
//! failures on an `http::page`, if they ask for one (`http::accept`). Each endpoint has its `upstream::standing`: by
//! the `upstream::health` that an `http::probe` finds, by being one of the `upstream::outliers`, by an operator's word.
//! `upstream` picks one `upstream::endpoint` of those that are usable by `upstream::balance`, within the bounds of the
//! `upstream::breaker`, bounds what is tried again by an `upstream::budget`, and is reached through `net`:
//! `net::resolve`, `net::dial`, `net::retry_after`, `net::tls` with `net::pem` and `net::x509`, one `net::stream` over
//! a `net::socket`. A rule of `http::auth` finds `http::auth::credentials` and comes to an `http::auth::verdict`: it
//! knows an `http::auth::api_key`, or reads an `http::auth::jwt` that is signed by an `http::auth::jwk` of its
//! `http::auth::issuer`, fetched by `net::fetch`, says what `http::auth::claims` ask for, and is kept in an
//! `http::auth::token_cache`; or it has a service asked (`http::auth::forward`). Bodies pass through `http::body`:
//! `http::body::request` up (what the `http::body::client` sends, `http::body::kept` where it may be sent again) and
//! `http::body::upstream` down, copied by `http::body::copied` where a value is read from it, `http::body::compressed`
//! for clients that want it, held by `http::body::stall`, ended by `http::body::end`, broken by `http::body::error`.
//! How a call of `http::grpc` ended stands in its trailers. A WebSocket is an `http::upgrade` that becomes an
//! `http::tunnel`, judged by its `http::upgrade::frames`.
//!
//! **Record.** `telemetry` is the one seam. What may stand on which signal, its `telemetry::attribute`s know by type. A
//! `telemetry::operation` with its `telemetry::exchange` and `telemetry::context` is sampled by `telemetry::sampling`
//! (within the `telemetry::sampling::budget`) and, when it drops, handed by `telemetry::recorder` to the sinks. What a
//! `telemetry::context::remote` caller says of its trace comes in one of the formats of `telemetry::context::format`:
//! `telemetry::context::traceparent` with `telemetry::context::state` and our `telemetry::context::ot` in it,
//! `telemetry::context::b3`, `telemetry::context::jaeger`; it is made of `telemetry::context::id` and
//! `telemetry::context::threshold`. How it ended is `telemetry::outcome`, why it was not tried again
//! `telemetry::retry`, where a cookie brought it `telemetry::sticky`; what of the client may be said,
//! `telemetry::privacy`. The sinks: `telemetry::metrics` (`telemetry::metrics::family`, `telemetry::metrics::registry`,
//! `telemetry::metrics::histogram`, `telemetry::metrics::connections`, `telemetry::metrics::page`,
//! `telemetry::metrics::count`, `telemetry::metrics::exemplars`, `telemetry::metrics::owned`, `telemetry::metrics::dns`,
//! `telemetry::metrics::endpoints`, `telemetry::metrics::issuers`, `telemetry::metrics::limits`,
//! `telemetry::metrics::questions`, `telemetry::metrics::reloads`, `telemetry::metrics::process`, found by the handles
//! of `telemetry::series`); `telemetry::access_log` (`telemetry::access_log::line`); `telemetry::errors`, which makes a
//! `telemetry::errors::line` of each exchange that failed and has it written by `telemetry::errors::deliver`, over a
//! connection to its `telemetry::errors::peer`, from a `telemetry::errors::outbox`; `telemetry::recent`, which keeps
//! what a `telemetry::recent::gate` admits as a `telemetry::recent::entry` in `telemetry::recent::rings`, to be found
//! by a `telemetry::recent::filter`, and tells where the time went by `telemetry::recent::phase`; `telemetry::spans`,
//! which has a `telemetry::spans::delivery` to each receiver, where `telemetry::spans::export`
//! (`telemetry::spans::attributes` lists what they say) sends what `telemetry::spans::assemble` makes of records, each
//! a `telemetry::span`, and whose samples are each a `telemetry::exemplar` once they are accepted. The
//! `telemetry::receivers` share a `telemetry::receivers::client` and `net::gzip`: `telemetry::receivers::otlp` writes
//! spans (`telemetry::receivers::otlp::encode`, `telemetry::receivers::otlp::protobuf`) and metrics
//! (`telemetry::receivers::otlp::metrics`, at the interval of `telemetry::push`), and reads what is said of them
//! (`telemetry::receivers::otlp::answer`); `telemetry::receivers::zipkin` writes them its own way
//! (`telemetry::receivers::zipkin::encode`), under the `telemetry::resource`. A `telemetry::backlog` stands between
//! requests and writers, and `telemetry::balance` counts what became of everything; `telemetry::trouble` keeps what
//! lasts from filling the log. `telemetry::hour` reads the routes' series now and then, each `telemetry::hour::slot` by
//! difference. `telemetry::settings` is what was configured, `telemetry::diagnostics` what the gateway says of itself,
//! `telemetry::testing` what the sinks' tests share. `failure` is the one vocabulary of reasons.
//!
//! **Operators.** `admin` serves its `admin::site` behind an `admin::guard`: `admin::health`, `admin::metrics`,
//! `admin::status`, the live `admin::page`, and `admin::api`, where `admin::api::board` has what is seen first (by
//! `admin::trouble`), `admin::api::traces` what an `admin::api::query` asks for, `admin::api::live` what happens, and
//! `admin::api::enter` opens an `admin::session`, which changes things from its own `admin::origin` alone. An
//! `admin::door` asks who comes by which of the `admin::ways`, an `admin::role` says what they open, an `admin::audit`
//! who did what; what it shows comes through `admin::control`. It stands on `net::serve`, which has `net::places`; the
//! health check asks by `net::once`. `commands::top` is the page for a terminal: `commands::top::stream` follows the
//! admin API as a `commands::top::client` that reads `commands::top::events`; news (`commands::top::data`) and keys
//! change the `commands::top::model`. It is seen by `commands::top::draw`, or once as `commands::top::plain` text:
//! `commands::top::routes`, one `commands::top::route`, `commands::top::upstreams`, `commands::top::traces`, one
//! `commands::top::trace`, `commands::top::telemetry`, in the figures of `commands::top::words` and the tones of
//! `commands::top::paint`.
//!
//! **Demo.** `demo` runs the real gateway between a `demo::customer` and the services `demo::shop` and `demo::mes`
//! (`demo::service`, `demo::tracer`), receives spans in `demo::collector` (`demo::otlp`) as `demo::span`s, gathers them
//! in `demo::traces` and draws them with `demo::tree`; `demo::event` joins its parts, `demo::forward` sends on to
//! Jaeger, `demo::command` is its command line; `demo::sample` plays one part alone, in a container.
//!
//! **Lint.** `lint` runs the gateway on a `lint::stage` with an upstream of its own (`lint::origin`), pays
//! `lint::visit`s by a `lint::client` that carry secrets (`lint::canary`) and have `lint::credentials`, in every
//! `lint::mood` of the upstream, takes what telemetry says to pieces (`lint::signals`) and
//! does a `lint::search` for them; `lint::command` is its command line. Its spans come by `net::collect`, as the
//! demo's do.
//!
//! # Imports point down
//!
//! main → commands, demo → gateway → admin → http → listener, upstream → telemetry → net → setting, problem,
//! failure, view, worker. No cycle, file by file; a test parses the sources and holds it. What is needed from above
//! comes as an argument: `admin::Control` and `telemetry::Sink` are implemented above the files that declare them.
//!
//! # What must stay absent
//!
//! - A second place that makes spans, metrics or log lines: state a fact on the operation's handle instead.
//! - A second place that turns failures into answers: `http::rescue` does (and `http::refuse`, where there was
//!   no request to answer).
//! - Text of a client or an upstream in a label, a span or the access log, but for what the configuration
//!   names. (Diagnostics at debug level quote the libraries' errors.)
//! - The traffic's protocol libraries in the records of `telemetry` (its receivers are clients of their own),
//!   sockets in `http::path` or `http::routes`, exchanges in `upstream`.
//! - A queue, wait or count without a bound; global state, but for which `worker` a thread is; unsafe code.
//!
//! Later protocols are siblings of `http`: they implement `listener::Protocol` and start operations of their own.

#![forbid(unsafe_code)]

pub mod commands;
pub mod demo;
pub mod lint;

pub mod gateway;

pub mod listener;

pub mod http;
pub mod upstream;

pub mod telemetry;

pub mod admin;

pub mod failure;
pub mod net;
pub mod problem;
pub mod setting;
pub mod view;
pub mod worker;
