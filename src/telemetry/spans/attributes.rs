//! Every attribute of spans, what it says and on which spans it stands: the table that the reference is made of.

/// An attribute.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    /// Its key.
    pub key: &'static str,
    /// The kinds of spans that may have it.
    pub spans: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

const fn of(key: &'static str, spans: &'static str, meaning: &'static str) -> Attribute {
    Attribute { key, spans, meaning }
}

/// Every attribute, but for business attributes (`order.id`) and listed fields (`http.request.header.…`), which the
/// configuration names.
pub const ALL: &[Attribute] = &[
    of(
        "client.address",
        "SERVER",
        "The client's address, as far as `telemetry.privacy.client_address` lets it out.",
    ),
    of(
        "error.type",
        "SERVER, CLIENT",
        "Where the status is Error: the reason, or the status code for `upstream_status`.",
    ),
    of(
        "http.request.body.size",
        "CLIENT",
        "Bytes of the request's body that the endpoint's connection has taken.",
    ),
    of("http.request.method", "all", "The method; `_OTHER` for those that are not well known."),
    of("http.request.resend_count", "CLIENT", "From the second attempt on: 1 for the second, and so on."),
    of("http.response.body.size", "CLIENT", "Bytes of the answer's body that came from the endpoint."),
    of("http.response.status_code", "all", "The status; none where nothing was answered."),
    of("http.route", "SERVER, INTERNAL", "The route's path template, before any rewrite."),
    of("network.peer.address", "CLIENT", "The address that the connection is to."),
    of("network.peer.port", "CLIENT", "Its port."),
    of("network.protocol.version", "SERVER", "`1.0`, `1.1` or `2`."),
    of("network.transport", "SERVER, CLIENT", "`unix` for Unix sockets."),
    of("peer.service", "CLIENT", "As `service.peer.name`, under its older name."),
    of("rpc.grpc.status_code", "SERVER, CLIENT", "The status that a gRPC call ended with."),
    of("rpc.system", "SERVER, CLIENT", "`grpc`, on gRPC calls."),
    of(
        "server.address",
        "SERVER, CLIENT",
        "The configured host of the route; of an attempt, the endpoint's.",
    ),
    of("server.port", "SERVER, CLIENT", "The listener's port; of an attempt, the endpoint's."),
    of("service.peer.name", "CLIENT", "The upstream's `service`: the edge in service graphs."),
    of(
        "tracegate.auth_method",
        "SERVER",
        "How it was verified who calls: `api_key`, `jwt`, `mtls` or `forward`.",
    ),
    of("tracegate.auth_rule", "SERVER", "The rule of `[auth]` that let the request pass."),
    of(
        "tracegate.auth_unverified",
        "SERVER",
        "Why nobody was verified, where a rule with `on_failure = \"open\"` let the request pass.",
    ),
    of("tracegate.blame", "SERVER, CLIENT", "Whose fault it is: `client`, `gateway` or `upstream`."),
    of("tracegate.client_role", "SERVER", "The role of the client's certificate."),
    of("tracegate.connection", "CLIENT", "`new` or `reused`."),
    of("tracegate.connect_ms", "CLIENT", "How long the TCP connection took."),
    of("tracegate.detail", "SERVER, CLIENT", "A finer word beside the reason."),
    of("tracegate.first_byte_ms", "CLIENT", "From the attempt's start to the answer's head."),
    of("tracegate.handshake_ms", "CLIENT", "How long the TLS handshake took."),
    of("tracegate.last_byte_ms", "CLIENT", "From the attempt's start to the answer's last byte."),
    of(
        "tracegate.not_retried",
        "SERVER",
        "Why the last attempt was not followed by another one that the rule asked for.",
    ),
    of("tracegate.operation", "SERVER", "The business operation, `order.create`."),
    of("tracegate.reason", "SERVER, CLIENT", "Why the exchange, or the attempt, did not simply succeed."),
    of("tracegate.request_sent_ms", "CLIENT", "From the attempt's start to the request's last byte."),
    of("tracegate.resolve_ms", "CLIENT", "How long finding the address took."),
    of("tracegate.route", "SERVER, INTERNAL", "The route's name."),
    of(
        "tracegate.rule",
        "SERVER, CLIENT",
        "The rule of the configuration that refused: `rate_limits.per_client`. On a CLIENT span: the rule that asked a service who may call.",
    ),
    of(
        "tracegate.sampled_because",
        "SERVER",
        "Why the trace is kept: `parent`, `ratio`, `forced`, `error`, `slow`, `retried`.",
    ),
    of(
        "tracegate.sticky",
        "SERVER",
        "What became of the client's way back to its endpoint: `new`, `kept`, `moved_unknown`, `moved_unusable` or `moved_retried`.",
    ),
    of("tracegate.stream", "SERVER", "`true` on streams."),
    of("tracegate.upstream", "all", "The upstream's name."),
    of(
        "tracegate.wait_ms",
        "CLIENT",
        "How long the attempt waited for a place in the pool, or for a connection that another one was dialling.",
    ),
    of("tracegate.websocket.close_code", "SERVER", "The code of the first close frame."),
    of("tracegate.websocket.closed_by", "SERVER", "Who sent it: `client` or `upstream`."),
    of("url.full", "CLIENT", "The endpoint and the template, without a query."),
    of("url.path", "SERVER", "The route's path template; `REDACTED` where no route was found."),
    of("url.query", "SERVER", "The listed keys that the query has, without their values."),
    of("url.scheme", "SERVER", "`http` or `https`."),
    of("url.template", "CLIENT", "The path template after the rewrite."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    #[test]
    fn the_table_has_what_spans_are_assembled_of_and_nothing_else() {
        let source = include_str!("assemble.rs");
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let is_name = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
        let names =
            source.split("attribute::").skip(1).map(|rest| rest.split(|letter| !is_name(letter)).next());
        let assembled: BTreeSet<String> =
            names.flatten().filter(|name| name.len() > 1).map(str::to_owned).collect();
        // a key's constant is named as it is
        let constant = |key: &str| key.to_ascii_uppercase().replace('.', "_");
        let told: BTreeSet<String> = ALL.iter().map(|attribute| constant(attribute.key)).collect();
        assert_eq!(told, assembled);
    }
}
