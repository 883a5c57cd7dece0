//! HTTP/1.1 and HTTP/2 on one port: a connection is a conversation, each of its requests walks the stages.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::body::RequestBody;
use super::conversation::{Conversation, Library};
use super::dispatch::{self, Dispatched};
use super::face::Manner;
use super::headers::{Fields, Peer};
use super::in_flight::Bound;
use super::record::{self, Exchanging, Open, RecordedBody};
use super::refuse::Refuser;
use super::rescue::{caught, rescue};
use super::retirement::Retirement;
use super::routes::Routes;
use super::streams::Streams;
use super::tunnel::Handover;
use crate::failure::{Detail, Failure, Reason};
use crate::listener::activity::Fate;
use crate::listener::drain::{Drain, Moment};
use crate::listener::{self, Connection, Protocol};
use crate::telemetry::Recorder;
use crate::telemetry::exchange::Scheme;
use crate::view::View;

/// How long a connection on which nothing has been asked yet is kept when the gateway goes down.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// HTTP on one listener.
#[derive(Debug)]
pub struct Server {
    settings: listener::Settings,
    routes: View<Routes>,
    recorder: Arc<Recorder>,
    refuser: Arc<Refuser>,
    library: Library,
    tasks: TaskTracker,
    /// Of the gateway and of the listener.
    in_flight: [Arc<Bound>; 2],
}

impl Server {
    /// HTTP by these routes. HTTP/2 streams are tasks of the tracker, requests in flight are
    /// bounded by both.
    pub fn new(
        settings: listener::Settings,
        routes: View<Routes>,
        recorder: Arc<Recorder>,
        tasks: TaskTracker,
        in_flight: [Arc<Bound>; 2],
    ) -> Arc<Self> {
        let refuser = Arc::new(Refuser::new(&settings, &recorder));
        let library = Library::new(&settings.limits);
        Arc::new(Self { settings, routes, recorder, refuser, library, tasks, in_flight })
    }

    /// One request, from its head to the answer whose body owns the operation.
    fn exchange(
        &self,
        request: http::Request<Incoming>,
        peer: &Arc<Peer>,
        mut activity: Open,
        drain: &Drain,
    ) -> impl Future<Output = http::Response<RecordedBody>> + Send + use<> {
        let (mut head, incoming) = request.into_parts();
        let client = self.client(peer, &head.headers);
        let fields = Fields::of(&head.headers);
        let operation = record::open(&self.recorder, &self.settings, peer, client, &mut head, fields);
        let handle = operation.handle().clone();
        let pace = self.settings.timeouts.body;
        let has_body = !incoming.is_end_stream();
        let body = RequestBody::new(incoming, handle.clone(), pace, activity.connection());
        let mut manner = Manner::of(&head.headers, fields);
        let closes = head.version != Version::HTTP_2;
        let with_body = (closes && has_body).then(|| Arc::clone(activity.connection()));
        let retires = closes && self.retires();
        let connection = retires.then(|| Arc::clone(activity.connection()));
        let work = caught(|| {
            self.admit(client)?;
            self.in_flight.iter().try_for_each(|bound| activity.places.take(bound))?;
            let limits = &self.settings.limits;
            dispatch::dispatch(&self.routes.current(), limits, peer, head, fields, body, &handle)
        });
        let work = work.and_then(|Dispatched { route, upstream, request }| {
            manner.facing(route.face.as_ref(), &request);
            // no `poll_ready`: every layer is always ready
            caught(|| {
                route.in_flight.iter().try_for_each(|bound| activity.places.take(bound))?;
                Ok(route.target(upstream).stack.clone().call(request))
            })
        });
        let drain = drain.clone();
        Exchanging::new(operation, activity, async move {
            let mut answer = rescue(&handle, &manner, work).await;
            if with_body.is_some_and(|connection| connection.has_unread()) {
                // nobody wants the rest any more: the library finds out what that means for the connection, and says so
                tokio::task::yield_now().await;
            }
            if closes
                && (drain.is_leaving()
                    || connection.is_some_and(|connection| connection.is_retiring())
                    || handle.failure().is_some_and(|(reason, _)| ends_connection(reason)))
            {
                record::tell_close(answer.headers_mut());
            }
            answer
        })
    }

    /// Whether clients are asked to make new connections now and then.
    fn retires(&self) -> bool {
        self.settings.limits.requests_per_connection.is_some()
            || self.settings.timeouts.connection_age.is_some()
    }

    /// Refuses requests of addresses that the listener does not let in.
    fn admit(&self, client: IpAddr) -> Result<(), Failure> {
        match &self.settings.addresses {
            Some(addresses) if !addresses.admit(client) => {
                let rule = format!("listeners.{}.addresses", self.settings.name).into();
                Err(Failure::new(Reason::Forbidden).detail(Detail::Address).rule(&rule))
            }
            _ => Ok(()),
        }
    }

    fn client(&self, peer: &Peer, headers: &HeaderMap) -> IpAddr {
        peer.client(headers, |address| self.settings.trusts(address))
    }
}

impl Protocol for Server {
    async fn serve(self: Arc<Self>, mut connection: Box<Connection>, drain: Drain) {
        let scheme = if connection.is_tls() { Scheme::Https } else { Scheme::Http };
        let address = connection.peer().ip().to_canonical();
        let peer = Peer::new(address, scheme, self.settings.trusts(address));
        let peer = Arc::new(peer.over(connection.session().cloned(), connection.is_plain_on_tls()));
        let activity = connection.activity();
        connection.on_refusal(self.refuser.hook(scheme, address, &activity));
        let handover = Handover::default();
        let streams = Streams::new(&self.tasks, self.settings.timeouts.body.within);
        let most = self.settings.limits.requests_per_connection;
        let mut retirement = Retirement::at(self.settings.timeouts.connection_age);
        let service = service_fn(|mut request: http::Request<Incoming>| {
            let upgrade = request.extensions_mut().remove::<OnUpgrade>();
            if upgrade.is_some() {
                activity.upgrade_asked();
            }
            let tunnel = upgrade.map(|client| (client, handover.clone()));
            let taking = (request.version() == Version::HTTP_2).then(|| streams.next());
            let open = Open::new(&activity, taking);
            if most.is_some_and(|most| activity.served() >= most) {
                activity.retire(Fate::Spent);
            }
            let answer = self.exchange(request, &peer, open, &drain);
            async move {
                let answer = answer.await;
                Ok::<_, Infallible>(match tunnel {
                    Some((client, handover)) => handover.keep(client, answer),
                    None => answer,
                })
            }
        });
        let mut serving = pin!(Conversation::new(&self.library, &streams, connection, service));
        // who comes when it closes already is told so, too
        let mut moment = drain.moment().min(Moment::Leaving);
        let end = loop {
            let served = {
                let working = pin!(retirement.during(&activity, serving.as_mut()));
                drain.during(moment, working).await
            };
            moment = match served {
                Ok(Some(end)) => break end,
                Ok(None) if activity.is_http2() => {
                    serving.as_mut().graceful_shutdown();
                    continue;
                }
                // its next answer says so
                Ok(None) => continue,
                Err(later) => later,
            };
            match moment {
                // HTTP/2 says GOAWAY at once; an HTTP/1.1 connection says `Connection: close` with its next
                // answer. HTTP/2 connections that arrive while leaving say GOAWAY when it comes to closing
                Moment::Leaving if !activity.is_http2() => {}
                Moment::Closing if activity.served() == 0 => {
                    // its first request is on its way: to close now would be to lose it
                    let first = pin!(tokio::time::timeout(FIRST_REQUEST, serving.as_mut()));
                    if let Ok(Ok(end)) = drain.during(moment, first).await {
                        break end;
                    }
                    serving.as_mut().graceful_shutdown();
                }
                Moment::Leaving | Moment::Closing => serving.as_mut().graceful_shutdown(),
                Moment::Serving => {}
                Moment::Cut => {
                    activity.cut(&Reason::ShuttingDown.into());
                    break Ok(());
                }
            }
        };
        if end.as_ref().is_err_and(|error| is_flood(&**error)) {
            // before anything that is still open on it drops
            activity.cut(&Failure::new(Reason::BadRequest).detail(Detail::Flood));
        }
        if let Some(tunnel) = handover.take() {
            // boxed: few connections become one
            let mut passing = Box::pin(tunnel.run());
            // a tunnel has no end of its own that could be asked for: it goes on until it is cut
            while let Err(later) = drain.during(moment, passing.as_mut()).await {
                moment = later;
                if moment == Moment::Cut {
                    activity.cut(&Reason::ShuttingDown.into());
                    break;
                }
            }
        }
        if let Err(error) = end {
            self.refuser.unanswered(scheme, address, &activity, &*error);
            activity.meets(if is_flood(&*error) { Fate::Flooded } else { Fate::Broken });
            tracing::debug!(error = %Chain(&*error), "connection with a client ended");
        }
    }
}

/// After these nobody can be sure where the next request begins, or the client is not worth waiting for
/// (RFC 9112 sections 6.1 and 9.6).
fn ends_connection(reason: Reason) -> bool {
    use Reason::{BadRequest, BodyTooLarge, ClientTimeout, HeaderTooLarge, UriTooLong};
    matches!(reason, BadRequest | BodyTooLarge | ClientTimeout | HeaderTooLarge | UriTooLong)
}

/// The library has had enough of the client's frames.
fn is_flood(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        }
        cause = error.source();
    }
    false
}

/// An error with what it came from.
struct Chain<'a>(&'a (dyn Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
