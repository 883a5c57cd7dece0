//! What each reason means, what usually leads to it, and what to ask next. The `match` holds every reason.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::failure::Reason;

/// For people.
pub(super) fn text(reason: Reason) -> String {
    let word = reason.word();
    let mut text = format!("{word}\n\n{}\n\n", reason.meaning());
    let _ = writeln!(text, "blame      {}", reason.blame().word());
    let _ = writeln!(text, "answer     {}", answer(reason));
    text.push_str("\nLikely causes\n");
    for cause in causes(reason) {
        let _ = writeln!(text, "  - {cause}");
    }
    text.push_str("\nWhat to look at\n");
    for (where_to, query) in queries(reason) {
        let _ = writeln!(text, "  {where_to:<11} {query}");
    }
    text
}

/// For programs. Keys may be added to it.
pub(super) fn object(reason: Reason) -> Value {
    let queries = queries(reason)
        .into_iter()
        .map(|(where_to, query)| (where_to.to_lowercase().replace(' ', "_"), query.into()));
    json!({
        "reason": reason.word(),
        "meaning": reason.meaning(),
        "blame": reason.blame().word(),
        "status": reason.status().map(|status| status.as_u16()),
        "causes": causes(reason),
        "queries": queries.collect::<serde_json::Map<_, _>>(),
    })
}

/// What the client sees.
pub(crate) fn answer(reason: Reason) -> String {
    match (reason.status(), reason) {
        (Some(status), _) => status.to_string(),
        (None, Reason::ClientGone) => "none, nobody is there; logs say 499".to_owned(),
        (None, Reason::UpstreamStatus) => "the upstream's own, passed on as it came".to_owned(),
        (None, Reason::GrpcStatus) => "HTTP 200 with the upstream's grpc-status".to_owned(),
        (None, _) => "none of its own: the head had been sent, so the connection or stream is cut".to_owned(),
    }
}

/// Where to look, and what to ask there.
pub(crate) fn queries(reason: Reason) -> Vec<(&'static str, String)> {
    let word = reason.word();
    vec![
        (
            "Live page",
            format!("/#/traces?reason={word} at the admin address, http://127.0.0.1:9901 by default"),
        ),
        (
            "Prometheus",
            format!(
                "sum by (tracegate_route) (rate(tracegate_requests_total{{tracegate_reason=\"{word}\"}}[5m]))"
            ),
        ),
        ("Jaeger", format!("service of the gateway, tags {{\"tracegate.reason\":\"{word}\"}}")),
        (
            "Log",
            format!(
                "jq 'select(.reason == \"{word}\") | {{time, route, upstream, endpoint, detail, rule, trace_id}}'"
            ),
        ),
    ]
}

/// What usually leads to it, the most likely first, each with what to do.
#[expect(clippy::too_many_lines, reason = "one entry for each reason")]
pub(crate) fn causes(reason: Reason) -> &'static [&'static str] {
    match reason {
        Reason::BadRequest => &[
            "the path has an encoded slash, a backslash or dot segments that leave the root (detail ambiguous_path): the client has to send a plain path",
            "Host is missing, twice or contradicts the target (detail invalid_host), the body has two lengths (detail ambiguous_length)",
            "HTTP without TLS on a TLS port (detail plain_http): the client needs https://",
            "a scanner or a broken client: the detail on the span and in the access log says what is wrong with its requests",
        ],
        Reason::Unauthenticated => &[
            "no key, token or certificate was sent (detail missing_credentials)",
            "the token is out of date (detail token_expired) or clocks differ: auth.NAME.jwt.clock_skew",
            "the issuer has changed its keys or the token is of another one (details unknown_key, wrong_issuer, bad_signature)",
            "the rule of the route is not the one the client was made for: tracegate explain URL shows it",
            "the service of a forward rule says that it knows nobody, or sends people to its login (detail denied)",
        ],
        Reason::Forbidden => &[
            "the credentials are right but lack a claim or a role (details missing_claim, wrong_audience, wrong_role)",
            "the service of a forward rule says no (detail denied): its own log at the same trace id",
            "the client's address is not let in (detail address): addresses of the listener or the route",
            "a browser's preflight is for another origin, method or field (details cors_origin, cors_method, cors_header)",
        ],
        Reason::NoRoute => &[
            "no route has this path, host or header: tracegate explain URL names the near misses",
            "the route is served on another listener",
            "a reload took the route away: /status and the log tell what changed",
        ],
        Reason::MethodNotAllowed => &[
            "the path is right, the method is not: the answer's Allow lists what is served",
            "TRACE is always refused (detail method)",
            "a browser's OPTIONS preflight on a route without cors",
        ],
        Reason::ClientTimeout => &[
            "the client's network is slow or gone: detail slow_head, slow_body or slow_reader says where it stood still",
            "the listener's timeouts.head or timeouts.body are too short for large uploads on slow lines, or its limits.body_progress asks for too much in them",
            "it does not take the answer within timeouts.exchange of the route (detail total)",
            "an attack by slow clients: limits.connections_per_client bounds them",
        ],
        Reason::BodyTooLarge => &[
            "an upload is larger than limits.body of the route: raise it, or tell the client",
            "the client does not divide its uploads as it should",
        ],
        Reason::UriTooLong => &[
            "a form is sent by GET that should be a POST",
            "limits.uri_bytes of the listener is too small for long queries",
        ],
        Reason::Misdirected => &[
            "the client reuses an HTTP/2 connection for a host that the certificate it saw is not for: it will try again on another one",
            "a proxy before the gateway sends all hosts over one TLS connection: let it use SNI",
        ],
        Reason::RateLimited => &[
            "one client asks too often: the field rule names the limit, the answer's Retry-After says when to come again",
            "many clients share one address (a proxy that is not in trusted_proxies, NAT): choose another key, or a wider bucket",
            "the limit is too low: rate_limits.NAME.requests, per and burst; dry_run = true shows what would happen",
        ],
        Reason::HeaderTooLarge => &[
            "cookies have grown: the client has to drop some",
            "limits.header_bytes or limits.header_count of the listener is too small (detail field_count is the latter)",
        ],
        Reason::ClientGone => &[
            "people left the page or an app gave up: its own timeout is shorter than the answer takes",
            "the upstream is slow: look at its duration on the CLIENT spans of these traces",
            "a load balancer before the gateway has a shorter timeout than the route",
        ],
        Reason::Panic => {
            &["a bug of the gateway: standard error has the panic with its place; please report it"]
        }
        Reason::Unsupported => {
            &["CONNECT: the gateway is no forward proxy; the client has it configured as one"]
        }
        Reason::Overloaded => &[
            "a bound on requests in flight is reached: rule or detail says which (limits.in_flight of gateway, listener or route)",
            "no free file descriptor or port: raise the limit of open files, look for leaked connections",
            "the upstream has become slow, so that requests pile up: look at its latency first",
        ],
        Reason::ShuttingDown => &[
            "a restart or a deployment while requests went on beyond shutdown.deadline",
            "the load balancer still sends after /readyz said 503: raise shutdown.drain_delay",
        ],
        Reason::RouteRemoved => &[
            "a reload removed the route, and its streams had reload.grace to end: clients have to connect anew",
        ],
        Reason::Maintenance => &[
            "an operator has put the route in maintenance: the file (maintenance.enabled) or the admin address, whose audit says who",
        ],
        Reason::AuthUnavailable => &[
            "the issuer's keys cannot be fetched (detail issuer_away): tracegate check --connect tries it",
            "the upstream of a forward rule is away or fails (details service_away, service_failed): tracegate check --connect tries it",
            "it is slow (detail timeout): auth.NAME.forward.timeout; or the request's own time was over (detail total)",
            "Redis is away and the rate limit is on_failure = \"closed\" (detail store_away)",
        ],
        Reason::LoopDetected => {
            &["an upstream's endpoint is the gateway itself, or sends back to it: look at endpoints and DNS"]
        }
        Reason::DnsFailed => &[
            "the name of the endpoint is wrong, or its service is gone: tracegate check --connect tries it",
            "the name server does not answer (detail timeout): [dns] servers, the network's rules",
        ],
        Reason::ConnectRefused => &[
            "the service is down or still starting: nothing listens there",
            "the port of the endpoint is wrong",
            "a firewall rejects the connection",
        ],
        Reason::TlsFailed => &[
            "the endpoint's certificate is not trusted (detail untrusted): tls.ca_file of the upstream",
            "it is for another name (detail name_mismatch): tls.server_name, or out of date (detail expired)",
            "the endpoint does not speak TLS, or asks for a certificate of ours: https:// in the endpoint, tls.certificate_file",
        ],
        Reason::UpstreamReset => &[
            "the service crashed or was restarted while it worked on the request: its own log at the same trace id",
            "it closes kept connections sooner than we do: pool.idle has to be shorter than its keep-alive",
            "a proxy or firewall between cuts connections",
        ],
        Reason::UpstreamProtocolError => &[
            "the service's answer is not HTTP, or contradicts itself (two lengths, a bad head): its own log",
            "the wrong protocol: protocol = \"h2\" for an HTTP/1.1 service, or the other way round",
        ],
        Reason::ResponseTooLarge => {
            &["the service sends more header than header_bytes of the upstream allows: cookies, debug fields"]
        }
        Reason::NoEndpoint => &[
            "every endpoint is unhealthy, ejected or taken out: /status and tracegate_endpoint_* tell which and why",
            "panic_threshold is \"off\", so that unhealthy ones are not tried in need",
        ],
        Reason::BreakerOpen => &[
            "as many requests, connections or waiters as breaker.* allows (the detail says which): the service is slow, or the bound too low",
        ],
        Reason::PoolTimeout => &[
            "the service is slow, so that connections are not given back: its latency first",
            "pool.connections is too low for the traffic, or pool.pending is full (detail queue_full)",
        ],
        Reason::ConnectTimeout => &[
            "the host is down or a firewall drops packets: tracegate check --connect tries it",
            "the service's accept queue is full",
            "connect_timeout is too short for the way there",
        ],
        Reason::UpstreamTimeout => &[
            "the service is slow: the CLIENT span's duration, and the service's own spans under it, say where",
            "timeouts.attempt (detail per_try), timeouts.request or timeouts.exchange (detail total) is too short for this operation",
            "the client of a gRPC call gave it little time (detail grpc_timeout)",
        ],
        Reason::UpstreamTruncated => &[
            "the service crashed or was killed while it answered: its own log at the same trace id",
            "it says a Content-Length that it does not keep",
        ],
        Reason::StreamIdleTimeout => &[
            "the service stopped in the middle of its answer: a lock, a slow query",
            "it sends an answer whose length is known in drops (detail slow_body): limits.answer_progress of the route",
            "a stream without heartbeats: send some, or raise timeouts.stream_idle of the route",
        ],
        Reason::GrpcStatus => &[
            "the service itself says that the call failed: rpc.grpc.status_code on the span, then its own log",
        ],
        Reason::WebsocketClose => &[
            "the service closed with a code of failure: tracegate.websocket.close_code on the span, then its own log",
        ],
        Reason::UpstreamStatus => &[
            "the service answered 4xx or 5xx: http.response.status_code on the span, then its own log at the same trace id",
            "the path that goes upstream is not one that the service knows: tracegate explain URL shows it",
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::{causes, object, queries, text};
    use crate::failure::Reason;

    #[test]
    fn every_reason_is_explained_in_full() {
        for &reason in Reason::ALL {
            let word = reason.word();
            assert!(
                !causes(reason).is_empty() && causes(reason).iter().all(|cause| cause.len() > 20),
                "{word}"
            );
            assert_eq!(queries(reason).iter().filter(|(_, query)| query.contains(word)).count(), 4, "{word}");
            let text = text(reason);
            for part in
                [word, reason.meaning(), reason.blame().word(), "tracegate_requests_total", "Jaeger", "jq"]
            {
                assert!(text.contains(part), "{word}: {part}\n{text}");
            }
            let object = object(reason);
            assert_eq!(
                object["status"].as_u64(),
                reason.status().map(|status| status.as_u16().into()),
                "{word}"
            );
        }
    }
}
