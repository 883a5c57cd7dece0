//! Which route a request takes: by host, path, method and header; and what of its path is refused.

use http::Method;

use crate::support::client::request;
use crate::support::gateway::upstream;
use crate::support::{Answer, Client, Origin, Raw, Reply, Stage, body};

async fn stage(routes: &str) -> Stage {
    let origin = Origin::start(Answer::ok()).await;
    let upstream = upstream("shop", origin.address);
    Stage::around(origin, &[&upstream, routes]).await
}

/// The route that the access log names; empty where none matched.
async fn route_of(stage: &Stage, reply: &Reply) -> String {
    let line = stage.gateway.logged(&reply.trace_id()).await;
    line["route"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_most_specific_route_wins() {
    let stage = stage(
        "[routes]
        exact = { match = { path = '/shop/orders' }, upstream = 'shop' }
        order = { match = { path = '/shop/orders/{order_id}' }, upstream = 'shop' }
        newest = { match = { path = '/shop/orders/newest' }, upstream = 'shop' }
        created = { match = { methods = ['POST'], path = '/shop/orders' }, upstream = 'shop' }
        beta = { match = { path = '/shop/orders', headers = { 'x-beta' = 'yes' } }, upstream = 'shop' }
        rest = { match = { path = '/shop/{*rest}' }, upstream = 'shop' }
        partner = { match = { hosts = ['partner.test'], path = '/shop/{*rest}' }, upstream = 'shop' }
        partners = { match = { hosts = ['*.partner.test'], path = '/shop/{*rest}' }, upstream = 'shop' }",
    )
    .await;
    let any = "shop.test";
    for (method, host, path, beta, expected) in [
        ("GET", any, "/shop/orders", "", "exact"),
        ("GET", any, "/shop/orders?x=1", "", "exact"),
        ("POST", any, "/shop/orders", "", "created"),
        ("GET", any, "/shop/orders", "yes", "beta"),
        ("GET", any, "/shop/orders", "no", "exact"),
        ("GET", any, "/shop/orders/42", "", "order"),
        ("GET", any, "/shop/orders/newest", "", "newest"),
        ("GET", any, "/shop/orders/42/items", "", "rest"),
        ("GET", any, "/shop/", "", "rest"),
        ("GET", any, "/shop", "", "rest"),
        ("GET", "partner.test", "/shop/a", "", "partner"),
        ("GET", "PARTNER.test:8080", "/shop/a", "", "partner"),
        ("GET", "partner.test.", "/shop/a", "", "partner"),
        ("GET", "one.partner.test", "/shop/a", "", "partners"),
        ("GET", "one.two.partner.test", "/shop/a", "", "partners"),
        ("GET", "notpartner.test", "/shop/a", "", "rest"),
        ("GET", any, "/shopping", "", ""),
        ("GET", any, "/", "", ""),
    ] {
        let mut fields = vec![("host", host)];
        if !beta.is_empty() {
            fields.push(("x-beta", beta));
        }
        let reply = stage.gateway.ask(request(method.parse().unwrap(), path, &fields, body::empty())).await;
        assert_eq!(reply.status, if expected.is_empty() { 404 } else { 200 }, "{method} {host}{path}");
        assert_eq!(route_of(&stage, &reply).await, expected, "{method} {host}{path} {beta}");
    }
}

#[tokio::test]
async fn a_host_counts_in_http2_too() {
    let stage = stage(
        "[routes]
        one = { match = { hosts = ['one.test'], path = '/{*rest}' }, upstream = 'shop' }",
    )
    .await;
    let mut client = Client::http2(stage.gateway.address()).await;
    for (host, status) in [("http://one.test/a", 200), ("http://two.test/a", 404)] {
        assert_eq!(client.get(host).await.status, status, "{host}");
    }
    assert_eq!(stage.origin.only().await.header("host"), Some("one.test"));
}

#[tokio::test]
async fn another_method_is_told_which_ones_there_are() {
    let stage = stage(
        "[routes]
        create = { match = { methods = ['POST'], path = '/orders' }, upstream = 'shop' }
        read = { match = { methods = ['GET', 'HEAD'], path = '/orders' }, upstream = 'shop' }",
    )
    .await;
    let reply = stage.gateway.ask(request(Method::DELETE, "/orders", &[], body::empty())).await;
    assert_eq!((reply.status, reply.reason().as_deref()), (405, Some("method_not_allowed")));
    let mut allowed: Vec<&str> = reply.header("allow").unwrap().split(", ").collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

#[tokio::test]
async fn the_path_changes_on_its_way_as_the_route_says() {
    let stage = stage(
        "[routes]
        kept = { match = { path = '/kept/{*rest}' }, upstream = 'shop' }
        stripped = { match = { path = '/shop/{*rest}' }, upstream = 'shop', strip_prefix = '/shop' }
        rewritten = { match = { path = '/v1/orders/{id}' }, upstream = 'shop', rewrite_path = '/v2/o/{id}' }",
    )
    .await;
    for (path, expected) in [
        ("/kept/a?b=c", "/kept/a?b=c"),
        ("/shop/orders/42?b=c", "/orders/42?b=c"),
        ("/shop/", "/"),
        ("/shop", "/"),
        ("/shop?b", "/?b"),
        ("/v1/orders/42?b=%2f", "/v2/o/42?b=%2f"),
    ] {
        let count = stage.origin.seen().len();
        assert_eq!(stage.get(path).await.status, 200, "{path}");
        assert_eq!(stage.origin.seen()[count].target, expected, "{path}");
    }
}

#[tokio::test]
async fn what_is_routed_is_what_is_forwarded() {
    let stage = stage("[routes]\nshop = { match = { path = '/shop/{*rest}' }, upstream = 'shop' }\n").await;
    for (written, expected) in [
        ("/shop/a", Some("/shop/a")),
        ("//shop///a", Some("/shop/a")),
        ("/other/../shop/a", Some("/shop/a")),
        ("/other/%2e%2E/shop/a", Some("/shop/a")),
        ("/%73hop/a", Some("/shop/a")),
        ("/shop/%7ea/caf%c3%a9", Some("/shop/~a/caf%C3%A9")),
        ("/shop/a%20b;v=1", Some("/shop/a%20b;v=1")),
        ("/shop/../secret", None),
    ] {
        let count = stage.origin.seen().len();
        let head = format!("GET {written} HTTP/1.1\r\nhost: a\r\n\r\n");
        let reply = Raw::sending(stage.gateway.address(), head).await.reply().await;
        assert_eq!(reply.status, if expected.is_some() { 200 } else { 404 }, "{written}");
        assert_eq!(stage.origin.seen().get(count).map(|seen| seen.target.clone()).as_deref(), expected);
    }
}

#[tokio::test]
async fn a_path_that_two_servers_may_read_differently_is_refused() {
    let stage = stage("[routes]\nall = { match = { path = '/{*rest}' }, upstream = 'shop' }\n").await;
    for path in [
        "/shop%2fsecret",
        "/shop%5csecret",
        "/shop\\secret",
        "/shop/%00",
        "/shop/%0d%0ax:y",
        "/..",
        "/shop/../../secret",
        "/shop/%2e%2e/%2e%2e/secret",
        "/shop/..;/secret",
        "shop",
        "shop:80",
        "/shop/%",
        "/shop/%zz",
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        let reply = Raw::sending(stage.gateway.address(), head).await.reply().await;
        assert_eq!((reply.status, reply.reason().as_deref()), (400, Some("bad_request")), "{path}");
    }
    assert!(stage.origin.seen().is_empty());
}

#[tokio::test]
async fn a_route_may_be_served_on_one_listener_only() {
    let stage = stage(
        "[listeners.partners]
        address = '127.0.0.1:0'
        [routes]
        all = { match = { path = '/{*rest}' }, upstream = 'shop' }
        partners = { match = { path = '/partners' }, upstream = 'shop', listeners = ['partners'] }",
    )
    .await;
    for (listener, path, expected) in
        [("public", "/partners", "all"), ("partners", "/partners", "partners"), ("partners", "/a", "all")]
    {
        let reply = Client::http1(stage.gateway.listener(listener)).await.get(path).await;
        assert_eq!(route_of(&stage, &reply).await, expected, "{listener} {path}");
    }
}

#[tokio::test]
async fn the_business_attributes_of_a_route_stand_on_spans_and_in_the_log() {
    let origin = Origin::start(Answer::ok().header("x-order-id", "from-answer")).await;
    let upstream = upstream("shop", origin.address);
    let routes = "
        [routes.read]
        match = { path = '/orders/{order_id}' }
        upstream = 'shop'
        operation = 'order.read'
        attributes = { 'order.id' = { path = 'order_id' }, 'shop.tenant' = { request_header = 'x-tenant' } }
        [routes.create]
        match = { path = '/orders' }
        upstream = 'shop'
        operation = 'order.create'
        attributes = { 'order.id' = { response_header = 'x-order-id' } }";
    let stage = Stage::around(origin, &[&upstream, routes]).await;
    for (path, tenant, order, operation) in [
        ("/orders/A-42", "north", "A-42", "order.read"),
        ("/orders/a%20b", "a person's name", "_invalid", "order.read"),
        ("/orders", "unused", "from-answer", "order.create"),
    ] {
        let reply =
            stage.gateway.ask(request(Method::GET, path, &[("x-tenant", tenant)], body::empty())).await;
        let told = stage.told(&reply.trace_id(), 1).await;
        assert_eq!(told.server.attribute("order.id"), Some(order), "{path}");
        assert_eq!(told.server.attribute("tracegate.operation"), Some(operation), "{path}");
        assert!(told.log.to_string().contains(order), "{}", told.log);
        assert!(!told.log.to_string().contains("person"), "{}", told.log);
    }
    let metrics = stage.gateway.metrics().await;
    assert!(!metrics.text.contains("A-42"), "order numbers stay out of the metrics");
}
