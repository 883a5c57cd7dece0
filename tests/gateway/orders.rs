//! The order number: one order is followed through every record, across traces.

use http::Method;

use crate::support::client::request;
use crate::support::gateway::{route, upstream};
use crate::support::{Answer, Collector, Gate, Gateway, Logstash, Origin, Reply, Seen, Stage, body};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A stage with one route whose `order.id` is read from the answer.
async fn reading(answer: Answer) -> Stage {
    Stage::and(answer, "[routes.all.attributes]\n'order.id' = { response_json = '/order/id' }\n").await
}

/// What was recorded as `order.id`, alike on both spans and in the access log.
async fn recorded(stage: &Stage, reply: &Reply) -> Option<String> {
    let told = stage.told(&reply.trace_id(), 1).await;
    let server = told.server.attribute("order.id");
    assert_eq!(told.attempts[0].attribute("order.id"), server);
    assert_eq!(told.log["attributes"]["order.id"].as_str(), server);
    server.map(str::to_owned)
}

#[tokio::test]
async fn one_order_is_followed_through_four_traces() {
    let shop = Origin::start(|seen: &Seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("POST", "/orders") => Answer::status(201)
            .header(JSON.0, JSON.1)
            .data(r#"{"items":[{"order_id":"other"}],"order_id":"o-1001"}"#),
        ("GET", "/orders/o-1001") => Answer::ok(),
        _ => Answer::status(503),
    })
    .await;
    let mes = Origin::start(Answer::reset()).await;
    let (collector, logstash) = (Collector::start().await, Logstash::start());
    // the shipped routes, with addresses of this test
    let gateway = Gateway::start(&[
        include_str!("../../routes.toml"),
        "[listeners.public]\naddress = '127.0.0.1:0'\n[admin]\naddress = '127.0.0.1:0'\n",
        &upstream("shop", shop.address),
        &upstream("mes", mes.address),
        &collector.grpc(),
        &logstash.settings(),
    ])
    .await;
    let mut traces = Vec::new();
    for (method, path, status) in [
        (Method::POST, "/shop/orders", 201),
        (Method::GET, "/shop/orders/o-1001", 200),
        (Method::POST, "/shop/orders/o-1001/payment", 503),
        (Method::POST, "/mes/orders/o-1001/price", 502),
    ] {
        let reply = gateway.ask(request(method, path, &[], body::empty())).await;
        assert_eq!(reply.status, status, "{path}");
        let trace = reply.trace_id();
        assert!(!traces.contains(&trace), "a trace of its own");
        for span in collector.trace(&trace, 2).await {
            assert_eq!(span.attribute("order.id"), Some("o-1001"), "{path}: {span:#?}");
        }
        let logged = gateway.logged(&trace).await;
        assert_eq!(logged["attributes"]["order.id"], "o-1001", "{path}");
        if status >= 500 {
            assert_eq!(logstash.of(&trace).await["labels"]["order_id"], "o-1001", "{path}");
        }
        traces.push(trace);
    }
    let page = gateway.metrics().await.text;
    assert!(!page.contains("o-1001"), "never on metrics: {page}");
}

#[tokio::test]
async fn the_answer_passes_as_it_is_while_its_number_is_read() {
    let filler = "x".repeat(20_000);
    for (answer, expected) in [
        (vec![r#"{"order":{"id":"o-1"}}"#.to_owned()], Some("o-1")),
        (vec![r#"{"order":{"#.to_owned(), r#""id":47"#.to_owned(), "11}}".to_owned()], Some("4711")),
        (vec![format!(r#"{{"order":{{"id":"o-1"}},"rest":"{filler}"}}"#)], Some("o-1")),
        (vec![format!(r#"{{"rest":"{filler}","order":{{"id":"o-1"}}}}"#)], None),
        (vec![r#"{"order":{"id":"Jane Doe"}}"#.to_owned()], Some("_invalid")),
        (vec![r#"{"order":{"id":{"a":1}}}"#.to_owned()], Some("_invalid")),
        (vec![r#"{"order":{"id":null}}"#.to_owned()], None),
        (vec!["<html>".to_owned()], None),
        (vec![], None),
    ] {
        let whole = answer.concat();
        for length in [true, false] {
            let fields = Answer::status(200).header(JSON.0, JSON.1);
            let fields = if length { fields } else { fields.trailer("x-end", "1") };
            let stage = reading(answer.iter().fold(fields, |body, part| body.data(part.clone()))).await;
            let reply = stage.get("/").await;
            assert!(reply.text() == whole && !reply.broken, "as it is");
            let written = whole.len().to_string();
            assert_eq!(reply.header("content-length"), length.then_some(written.as_str()));
            assert_eq!(
                recorded(&stage, &reply).await.as_deref(),
                expected,
                "{}",
                &whole[..whole.len().min(60)]
            );
        }
    }
}

#[tokio::test]
async fn the_answer_is_not_held_back() {
    let gate = Gate::new();
    let first = Answer::status(200).header(JSON.0, JSON.1).data(r#"{"order":{"id":"o-1"},"#);
    let stage = reading(first.gate(&gate).data(r#""rest":1}"#).trailer("x-end", "1")).await;
    let mut client = stage.client().await;
    let answer = client.send(crate::support::client::get("/")).await.unwrap();
    // it opens once the first part has come through
    let (parts, mut body) = answer.into_parts();
    let part = crate::support::within("the first part", http_body_util::BodyExt::frame(&mut body)).await;
    assert_eq!(part.unwrap().unwrap().into_data().unwrap(), r#"{"order":{"id":"o-1"},"#);
    gate.open();
    let reply = Reply::read(http::Response::from_parts(parts, body)).await;
    assert_eq!(recorded(&stage, &reply).await.as_deref(), Some("o-1"));
}

#[tokio::test]
async fn only_plain_json_is_read() {
    for (kind, encoding) in [("text/plain", "identity"), ("application/json", "gzip")] {
        let answer = Answer::status(200).header("content-type", kind).header("content-encoding", encoding);
        let stage = reading(answer.data(r#"{"order":{"id":"o-1"}}"#)).await;
        let reply = stage.get("/").await;
        assert_eq!(recorded(&stage, &reply).await, None, "{kind} {encoding}");
    }
}

#[tokio::test]
async fn an_order_whose_answer_breaks_off_is_found_all_the_same() {
    let answer = Answer::status(201).header(JSON.0, JSON.1).data(r#"{"order":{"id":"o-1"},"#);
    let stage = reading(answer.announced(1000).then_close()).await;
    let reply = stage.get("/").await;
    assert!(reply.broken);
    assert_eq!(recorded(&stage, &reply).await.as_deref(), Some("o-1"));
}

#[tokio::test]
async fn a_pointer_is_checked_before_it_is_used() {
    let nobody = crate::support::link::Refusing::start();
    for (source, what) in [
        ("response_json = 'id'", "does not begin with a slash"),
        ("response_json = '/a~b'", "has a tilde"),
        ("response_json = '/id', path = 'rest'", "from one place"),
        ("request_header = 'cookie'", "holds credentials"),
    ] {
        let texts = [
            upstream("shop", nobody.address),
            route("all", "/{*rest}", "shop"),
            format!("attributes = {{ 'order.id' = {{ {source} }} }}\n"),
        ];
        let refusal = Gateway::refusal(&[&texts.concat()]).await;
        assert!(refusal.contains(what), "{source}: {refusal}");
    }
}
