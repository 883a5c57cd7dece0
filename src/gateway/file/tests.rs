//! What `load` makes of files and environments.

use std::sync::LazyLock;
use std::time::Duration;

use figment::value::Value;

use super::schema::Content;
use super::*;
use crate::http::route::Rewrite;
use crate::telemetry::settings::{Otlp, OtlpProtocol};

/// The smallest configuration there is, and a route.
const SMALL: &str = r#"
[listeners.public]
address = "127.0.0.1:0"

[upstreams.shop]
endpoints = ["http://127.0.0.1:9001"]

[routes.shop]
match = { path = "/shop/{*rest}" }
upstream = "shop"
"#;

fn sources(files: &[&str], environment: &[(&str, &str)]) -> Sources {
    let named = |(index, text): (usize, &&str)| {
        let name = if index == 0 { "routes.toml".to_owned() } else { format!("more{index}.toml") };
        (name, (*text).to_owned())
    };
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Sources {
        files: files.iter().enumerate().map(named).collect(),
        environment: environment.iter().map(owned).collect(),
        directory: env!("CARGO_MANIFEST_DIR").into(),
    }
}

fn loaded(files: &[&str], environment: &[(&str, &str)]) -> Settings {
    if let [text] = files {
        assert_eq!(against_schema(text), Vec::<String>::new(), "{text}");
    }
    load(&sources(files, environment)).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Each problem's first line.
fn problems(files: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    let Err(problems) = load(&sources(files, environment)) else { return Vec::new() };
    problems.iter().map(|problem| problem.to_string().lines().next().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn check(more: &str, expected: &[&str]) {
    assert_eq!(problems(&[&format!("{SMALL}{more}")], &[]), expected, "{more}");
}

fn otlp(environment: &[(&str, &str)], more: &str) -> Option<Otlp> {
    loaded(&[&format!("{SMALL}{more}")], environment).telemetry.otlp
}

#[test]
fn the_committed_example_works_as_it_stands() {
    let settings = loaded(&[include_str!("../../../routes.toml")], &[]);
    assert_eq!(settings.listeners[0].address.to_string(), "0.0.0.0:8080");
    assert_eq!(settings.admin.address.to_string(), "127.0.0.1:9901");
    let names: Vec<_> = settings.routes.iter().map(|route| &*route.name).collect();
    let all = ["mes", "order_cancel", "order_create", "order_pay", "order_read", "price_calculate", "shop"];
    assert_eq!(names, all);
    for route in &settings.routes {
        assert_eq!(route.timeouts.request, Some(Duration::from_secs(10)), "{}", route.name);
        assert_eq!(route.timeouts.attempt, Some(Duration::from_secs(3)), "{}", route.name);
        assert!(matches!(route.rewrite, Rewrite::StripPrefix(_)), "{}", route.name);
    }
}

/// The example with the comment sign taken from every key, but for what cannot stand beside the rest.
fn whole_example() -> String {
    fn key(line: &str) -> Option<&str> {
        let line = line.strip_prefix("# ")?;
        let table = line.starts_with('[') && line.split(']').next().is_some_and(|name| !name.contains(' '));
        let pair = line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        (table || pair).then_some(line)
    }
    let text: Vec<_> = include_str!("../../../routes.toml")
        .lines()
        // Inline tables cannot be added to, and the example's routes are written so.
        .filter(|line| {
            !line.starts_with("# match.")
                && !line.starts_with("match = { methods = [\"POST\"], path = \"/shop/orders\" }")
        })
        .map(|line| key(line).unwrap_or(line))
        .collect();
    let matches = "hosts = [], methods = [], headers = { \"x-canary\" = true }, path = \"/shop/orders\"";
    let create = "[routes.order_create]";
    text.join("\n").replace(create, &format!("{create}\nmatch = {{ {matches} }}"))
}

#[test]
fn every_key_in_the_examples_comments_is_one() {
    let text = whole_example();
    let found = problems(
        &[&text],
        &[
            ("OTLP_AUTHORIZATION", "Bearer 1"),
            ("FORCE_TOKEN", "0123456789abcdef"),
            ("SHOP_TOKEN", "1"),
            ("REDIS_PASSWORD", "opensesame"),
            ("STICKY", "0123456789abcdef"),
        ],
    );
    let files = |line: &String| line.contains("_file: the file") || line.contains("tls: is never used");
    let other: Vec<_> = found.iter().filter(|line| !files(line)).collect();
    assert_eq!(other, Vec::<&String>::new(), "{text}");
    assert_eq!(against_schema(&text), Vec::<String>::new(), "{text}");
}

/// As a key, or in the words beside one where it cannot stand: `or by names = ["mes.example"]`.
#[test]
fn every_key_there_is_stands_in_the_example() {
    fn look(
        node: &schema::Node,
        values: &[&serde_json::Value],
        key: &str,
        words: &str,
        missing: &mut Vec<String>,
    ) {
        let name = key.rsplit('.').next().unwrap_or_default();
        let is_named = name != "NAME" && words.contains(&format!(" {name} = "));
        if AS_ELSEWHERE.iter().any(|known| key.starts_with(known)) || (values.is_empty() && is_named) {
            return;
        }
        if values.is_empty() {
            missing.push(key.to_owned());
            return;
        }
        match &node.content {
            Content::Table(keys) => {
                for (name, node) in keys {
                    let below: Vec<_> = values.iter().filter_map(|value| value.get(name)).collect();
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    look(node, &below, &key, words, missing);
                }
            }
            Content::Named(node) => {
                let below = values.iter().filter_map(|value| value.as_object());
                let below: Vec<_> = below.flat_map(|table| table.values()).collect();
                look(node, &below, &format!("{key}.NAME"), words, missing);
            }
            Content::Value(_) => {}
        }
    }
    let text = whole_example();
    let values = document::parse(0, "routes.toml", &text).expect("TOML");
    let values = serde_json::to_value(values).expect("plain values become JSON");
    let words = text
        .lines()
        .filter_map(|line| line.split_once('#'))
        .map(|(_, words)| words.replace("{ ", " ").replace('.', " "));
    let mut missing = Vec::new();
    look(&schema::root(), &[&values], "", &words.collect::<String>(), &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}

/// What the example has once, for one of those that have the same keys, and says so.
const AS_ELSEWHERE: [&str; 10] = [
    "telemetry.zipkin.",
    "auth.NAME.jwt.jwks.tls",
    "redis.NAME.tls",
    "telemetry.logstash.tls.",
    "admin.jwt.jwks",
    "admin.jwt.claims",
    "admin.jwt.clock_skew",
    "admin.jwt.token_bytes",
    "admin.jwt.cache",
    "defaults.route.",
];

/// What an editor would find wrong with a text: places and what is wrong there.
fn against_schema(text: &str) -> Vec<String> {
    static VALIDATOR: LazyLock<jsonschema::Validator> =
        LazyLock::new(|| jsonschema::draft202012::new(&schema::schema()).expect("a schema"));
    let values = document::parse(0, "routes.toml", text).expect("TOML");
    let values = serde_json::to_value(values).expect("plain values become JSON");
    VALIDATOR.iter_errors(&values).map(|error| format!("{} {error}", error.instance_path())).collect()
}

#[test]
fn the_schema_is_one_and_refuses_unknown_keys_and_wrong_types() {
    jsonschema::draft202012::meta::validate(&schema::schema()).expect("a schema of its own draft");
    for wrong in [
        "[listeners.public]\nadress = '127.0.0.1:0'",
        "[listeners.public]\naddress = 8080",
        "[listeners.Public]\naddress = '127.0.0.1:0'",
        "[listeners.public]\ntimeouts = { idle = 60 }",
        "[listeners.public]\ntimeouts = { idle = '0s' }",
        "[listeners.public]\nlimits.header_bytes = '64K'",
        "[upstreams.shop]\nendpoints = 'http://127.0.0.1:9001'",
        "[upstreams.shop]\nendpoints = ['ftp://shop']",
        "[upstreams.shop]\nendpoints = [{ url = 'http://a', wieght = 3 }]",
        "[upstreams.shop]\nbalance = 'random'",
        "[routes.a]\nmatch = { path = 'shop' }",
        "[routes.a]\nmatch = { methods = ['get'] }",
        "[routes.a]\nretry = false",
        "[telemetry]\notlp = { headers = { authorization = 'Bearer hunter2' } }",
        "[telemetry.sampling]\nratio = 1.5",
        "routs = {}",
    ] {
        assert!(!against_schema(wrong).is_empty(), "{wrong}");
    }
}

#[test]
fn every_key_is_described_and_every_default_is_what_the_constructors_do() {
    let base = format!(
        "{SMALL}{}",
        r#"
[upstreams.shop.health]
path = "/"
[upstreams.shop.tls]
[routes.shop.sticky]
[routes.shop.retry]
[routes.shop.cors]
origins = ["*"]
[routes.shop.hsts]
[routes.shop.compression]
[routes.moved]
match = { path = "/moved" }
redirect = { to = "/shop" }
[routes.fixed]
match = { path = "/fixed" }
respond = {}
[rate_limits.some]
requests = 5
[redis.main]
address = "redis://127.0.0.1"
[auth.staff.jwt]
issuer = "https://a"
audience = "off"
jwks_url = "http://127.0.0.1/"
[auth.keys.api_keys]
keys.a.sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
[auth.machines.mtls]
[telemetry.zipkin]
[telemetry.logstash]
address = "tcp://127.0.0.1:1"
[telemetry.sampling.force]
token = { env = "FORCE" }
[admin.tokens.a]
role = "metrics"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"#
    )
    .replace("[upstreams.shop.tls]\n", "");
    let told = |more: &[(&str, &str)]| {
        let environment: Vec<_> = more.iter().copied().chain([("FORCE", "0123456789abcdef")]).collect();
        let settings = load(&sources(&[&base], &environment))?;
        Ok::<_, Problems>(format!("{:?}", Settings { configuration: Configuration::default(), ..settings }))
    };
    let untouched = told(&[]).unwrap_or_else(|problems| panic!("{problems}"));
    let values = Merged::new(&sources(&[&base], &[])).written.clone();
    let (mut keys, mut compared, mut wrong) = (0, 0, Vec::new());
    let mut left = vec![(Key::root(), schema::root())];
    while let Some((key, node)) = left.pop() {
        keys += 1;
        if !key.is_root() && !node.description.ends_with('.') {
            wrong.push(format!("{key} is described as {:?}", node.description));
        }
        if let (Some(default), Content::Value(_)) = (&node.default, &node.content) {
            let path: Vec<String> = key.segments().map(str::to_uppercase).collect();
            let name = format!("TRACEGATE_{}", path.join("__"));
            let same = told(&[(&name, &default.to_string())]);
            compared += usize::from(same.is_ok());
            match same {
                Ok(same) if same == untouched => {}
                Ok(_) => wrong.push(format!("{key} = {default} is not the default")),
                Err(_) if NOT_ALONE.contains(&name.as_str()) => {}
                Err(problems) => wrong.push(format!("{key}: {problems}")),
            }
        }
        let written = key.segments().try_fold(&*values, |value, name| value.as_dict()?.get(name));
        match node.content {
            Content::Table(table) => {
                let there = !node.optional || written.is_some();
                let children = table.into_iter().filter(|(name, _)| there && name != "defaults");
                left.extend(children.map(|(name, node)| (key.child(&name), node)));
            }
            Content::Named(named) => {
                let there = written.and_then(Value::as_dict).into_iter().flatten();
                left.extend(there.map(|(name, _)| (key.child(name), (*named).clone())));
            }
            Content::Value(_) => {}
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(keys > 250 && compared > 150, "{keys} keys, {compared} defaults");
}

/// Defaults that cannot be written where the base has something else.
const NOT_ALONE: [&str; 2] =
    ["TRACEGATE_LISTENERS__PUBLIC__SOCKET_MODE", "TRACEGATE_UPSTREAMS__SHOP__HEALTH__SERVICE"];

#[test]
fn each_value_in_force_is_told_with_where_it_was_written() {
    let file = format!("[defaults.route]\ntimeouts.attempt = '3s'\n{SMALL}timeouts.request = '5s'\n");
    let more = "[upstreams.shop]\nconnect_timeout = '2s'\n[telemetry.sampling]\nforce = { token = { env = 'FORCE' } }\n\
                [routes.shop.headers.request]\nset = { 'x-api-key' = 'hunter2' }\n";
    let environment = [
        ("TRACEGATE_UPSTREAMS__SHOP__POOL__WAIT", "\"9s\""),
        ("FORCE", "hunter2-hunter2-hunter2"),
        ("OTEL_SERVICE_NAME", "gate"),
    ];
    let sources = sources(&[&file, more], &environment);
    load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    let values = effective::effective(&sources);
    let told = |key: &str| {
        let found = values.iter().find(|found| found.key.to_string() == key)?;
        let place = found.place.as_ref().map_or("default".to_owned(), ToString::to_string);
        Some(format!("{} {place}{}", found.value, if found.inherited { " inherited" } else { "" }))
    };
    for (key, expected) in [
        ("listeners.public.address", Some(r#""127.0.0.1:0" routes.toml:5:11"#)),
        ("listeners.public.limits.header_bytes", Some(r#""64KiB" default"#)),
        ("routes.shop.timeouts.request", Some(r#""5s" routes.toml:13:20"#)),
        ("routes.shop.timeouts.attempt", Some(r#""3s" routes.toml:2:20 inherited"#)),
        ("routes.shop.retry.attempts", Some("3 default")),
        ("routes.shop.cors", Some(r#""off" default"#)),
        ("routes.shop.headers.request.set.x-api-key", Some(r#""…" more1.toml:6:23"#)),
        ("upstreams.shop.connect_timeout", Some(r#""2s" more1.toml:2:19"#)),
        ("upstreams.shop.pool.wait", Some(r#""9s" TRACEGATE_UPSTREAMS__SHOP__POOL__WAIT"#)),
        ("upstreams.shop.tls.ca_file", None),
        ("upstreams.shop.health.check", None),
        ("telemetry.service_name", Some(r#""gate" OTEL_SERVICE_NAME"#)),
        ("telemetry.sampling.force.token.env", Some(r#""FORCE" more1.toml:4:27"#)),
        ("telemetry.zipkin", Some(r#""off" default"#)),
    ] {
        assert_eq!(told(key).as_deref(), expected, "{key}");
    }
    assert!(!format!("{values:?}").contains("hunter2"), "secrets are not told");
}

#[test]
fn secrets_and_key_files_need_not_be_there_if_nobody_will_use_them() {
    let text = format!(
        "{SMALL}headers.request.secrets = {{ authorization = {{ env = 'GONE' }} }}\nsticky.secret = {{ file = 'gone' }}\n\
         [listeners.public.tls]\ncertificate_file = 'gone.pem'\nkey_file = 'gone-key.pem'\n\
         [auth.partners.api_keys]\nkeys_file = 'gone-keys'\n"
    );
    let sources = sources(&[&text], &[]);
    let missing = load(&sources).expect_err("they are not there");
    assert_eq!(missing.len(), 5, "{missing}");
    load_without_secrets(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    let wrong = text.replace("upstream = \"shop\"", "upstream = \"shpo\"");
    let sources = Sources { files: vec![("routes.toml".to_owned(), wrong)], ..sources };
    let problems = load_without_secrets(&sources).expect_err("all else is looked at");
    assert!(problems.len() == 1 && problems.to_string().contains("shpo"), "{problems}");
}

#[test]
fn fifteen_problems_of_ten_kinds_are_told_at_once_with_line_and_column() {
    let text = r#"
[listeners.public]
address = "localhost:8080"
trusted_proxies = ["10.0.0.0/8", "everyone"]
timeouts = { idle = 60, head = "0s" }

[listeners.second]
limits.header_bytes = "64K"

[admin]
address = "0.0.0.0:9901"

[telemetry.otlp]
headers = { authorization = "Bearer hunter2" }

[telemetry.sampling]
ratio = 1.5

[metrics]
buckets = [0.1, 1, 0.5]

[upstreams.shop]
endpoint = ["http://127.0.0.1:9001"]

[upstreams.mes]
endpoints = [
  "http://127.0.0.1:9002",
  "http://user:hunter2@127.0.0.1:9003",
]
balance = "random"

[routes.order_read]
match = { methods = ["get"], path = "/shop/orders/{order_id}" }
upstream = "shpo"
strip_prefix = "/sho"
attributes = { "order.id" = { path = "order" } }

[routes.a]
match = { path = "/mes/{x}" }
upstream = "mes"

[routes.b]
match = { path = "/mes/{y}" }
upstream = "mes"
"#;
    let problems = load(&sources(&[text], &[])).expect_err("there are problems").to_string();
    let expected = r#"routes.toml:3:11: listeners.public.address: "localhost:8080" is neither an IP address and a port nor a Unix socket
  help: write "127.0.0.1:8080", "0.0.0.0:8080", "[::]:8080" or "unix:/run/tracegate.sock"
routes.toml:4:34: listeners.public.trusted_proxies[1]: "everyone" is not a network
  help: write "10.0.0.0/8" or "fd00::/8"
routes.toml:5:21: listeners.public.timeouts.idle: 60 has no unit
  help: write a whole number and a unit: "250ms", "10s", "5m", "1h" or "14d"
routes.toml:5:32: listeners.public.timeouts.head: "0s" is no time at all
  help: write a whole number and a unit: "250ms", "10s", "5m", "1h" or "14d"; only where "off" is allowed, it disables
routes.toml:7:1: listeners.second.address: is missing
  help: write address = "0.0.0.0:8080"
routes.toml:8:23: listeners.second.limits.header_bytes: "64K" is not a size
  help: write a whole number and a unit: "512B", "64KiB", "10MB" or "1GiB"
routes.toml:11:11: admin.address: "0.0.0.0:9901" is not a loopback address, and nobody is asked who they are there
  help: write "127.0.0.1:9901", or add [admin.tokens.NAME] (tracegate token new), [admin.jwt] or [admin.certificates.NAME]; [probes] may listen anywhere
routes.toml:14:29: telemetry.otlp.headers.authorization: is a text, where a table belongs
  help: write { file = "…" } or { env = "…" }
routes.toml:17:9: telemetry.sampling.ratio: 1.5 is not a share
  help: write a number from 0.0 to 1.0
routes.toml:20:20: metrics.buckets[2]: 0.5 is not above 1
  help: write finite numbers of seconds above 0, ascending
routes.toml:22:1: upstreams.shop.endpoints: is missing
  help: write endpoints = ["http://127.0.0.1:9001"]
routes.toml:23:1: upstreams.shop.endpoint: is not a key
  help: write endpoints
routes.toml:28:3: upstreams.mes.endpoints[1]: the URL names a user
  help: write the URL without it; a header is the place for credentials
routes.toml:30:11: upstreams.mes.balance: "random" is none of "p2c" or "round_robin"
  help: write "p2c" or "round_robin"
routes.toml:33:22: routes.order_read.match.methods[0]: "get" is not a method: their letters are capitals
  help: write "GET"
routes.toml:34:12: routes.order_read.upstream: there is no upstream "shpo"
  help: write "shop"
routes.toml:35:16: routes.order_read.strip_prefix: "/sho" is not how the path "/shop/orders/{order_id}" begins
  help: write whole segments of the path: "/shop"
routes.toml:36:38: routes.order_read.attributes."order.id".path: the path "/shop/orders/{order_id}" has no parameter order
  help: the parameters are order_id
routes.toml:43:18: routes.b.match.path: ties with routes.a: both match the same requests equally well
  help: give one of them another path, or methods, hosts or headers that the other does not have"#;
    assert_eq!(problems, expected);
}

/// What is added to `SMALL` begins in this line.
const NEXT: usize = 11;

/// Adds a table that is right and then a line that is not, which is told at this column with these words.
#[track_caller]
fn check_line(table: &str, line: &str, column: usize, words: &str) {
    let text = format!("{SMALL}{table}\n{line}\n");
    let expected = format!("routes.toml:{}:{column}: {words}", NEXT + table.lines().count());
    let found = problems(&[&text], &[]);
    assert!(matches!(&found[..], [one] if one.starts_with(&expected)), "{text}\n{expected}\n{found:#?}");
}

#[test]
fn each_key_of_a_listener_is_checked() {
    let taken = "address: \"127.0.0.1:9901\" is taken by admin.address (\"127.0.0.1:9901\")";
    check_line("[listeners.a]", r#"address = "127.0.0.1:9901""#, 11, &format!("listeners.a.{taken}"));
    check_line("[probes]", r#"address = "127.0.0.1:9901""#, 11, &format!("probes.{taken}"));
    let number = "listeners.a.address: is the number 8080, where an address belongs";
    check_line("[listeners.a]", "address = 8080", 11, number);
    for (line, column, words) in [
        ("adress = 1", 1, "adress: is not a key"),
        (r#"tls = { key_file = "Cargo.toml" }"#, 7, "tls.certificate_file: is missing"),
        ("context.inbound = \"trusted-only\"", 19, "context.inbound: nobody is trusted"),
        ("context.inbound = \"trust\"", 19, "context.inbound: \"trust\" is none of"),
        ("context = { formats = [] }", 23, "context.formats: is empty"),
        (r#"context = { formats = ["b3", "w3c", "b3"] }"#, 23, "context.formats: names a format twice"),
        (r#"context = { formats = ["zipkin"] }"#, 24, "context.formats[0]: \"zipkin\" is none of"),
        ("limits = { connections = -1 }", 26, "limits.connections: -1 is out of bounds"),
        (r#"timeouts.head = "off""#, 17, "timeouts.head: \"off\" is not a duration"),
    ] {
        let listener = "[listeners.a]\naddress = \"127.0.0.1:0\"";
        check_line(listener, line, column, &format!("listeners.a.{words}"));
    }
}

#[test]
fn each_key_of_an_upstream_is_checked() {
    for (line, column, words) in [
        ("endpoints = []", 13, "endpoints: is empty"),
        (r#"endpoints = "http://a""#, 13, "endpoints: is a text, where a list belongs"),
        (r#"endpoints = ["http://localhost:9901"]"#, 14, "endpoints[0]: is the gateway's own admin address"),
        (r#"endpoints = ["http://a", "http://a:80"]"#, 26, "endpoints[1]: is written twice"),
        (r#"endpoints = ["https://a b"]"#, 14, "endpoints[0]: \"https://a b\" is not a URL"),
        (
            r#"endpoints = [{ url = "http://a", weight = 101 }]"#,
            43,
            "endpoints[0].weight: 101 is out of bounds",
        ),
        (r#"endpoints = [{ url = "a" }]"#, 22, "endpoints[0].url: \"a\" does not begin"),
        (r"endpoints = [{ weight = 2 }]", 14, "endpoints[0]: has no url"),
        (r#"endpoints = [{ url = "http://a", wieght = 2 }]"#, 14, "endpoints[0]: wieght is not a key here"),
        ("endpoints = [5]", 14, "endpoints[0]: is the number 5, where a URL, or { url"),
    ] {
        check_line("[upstreams.b]", line, column, &format!("upstreams.b.{words}"));
    }
    for (line, column, words) in [
        (r#"tls = { ca_file = "x" }"#, 7, "tls: is never used"),
        ("pool = 5", 8, "pool: is a number, where a table belongs"),
        ("pool = { pending = 0 }", 20, "pool.pending: 0 is out of bounds"),
        ("service = true", 11, "service: is true, where a text in quotes belongs"),
        (r#"protocol = "h3""#, 12, "protocol: \"h3\" is none of"),
        ("propagate = true", 13, "propagate: is true, where a list belongs"),
        ("propagate = []", 13, "propagate: is empty"),
        (r#"propagate = ["w3c", "b4"]"#, 21, "propagate[1]: \"b4\" is none of"),
        (r#"propagate = "b3""#, 13, "propagate: is a text, where a list such as"),
        ("health = {}", 10, "health.path: is missing"),
        (r#"health = { path = "healthz" }"#, 19, "health.path: \"healthz\" is not a path"),
        (r#"health = { path = "/", statuses = [] }"#, 35, "health.statuses: is empty"),
        (r#"health = { path = "/", statuses = ["2xx"] }"#, 36, "health.statuses[0]: \"2xx\" is not a range"),
        (r#"health = { path = "/", host = "a/b" }"#, 31, "health.host: \"a/b\" is not a host"),
        (r#"health = { path = "/", rise = 0 }"#, 31, "health.rise: 0 is out of bounds"),
        (r#"health = { check = "grpc" }"#, 20, "health.check: \"grpc\" needs HTTP/2"),
        (r#"health = { check = "tcp", path = "/" }"#, 34, "health.path: is not used by this kind"),
        ("outliers = { share = 0.0 }", 22, "outliers.share: would eject whoever does not fail"),
        (
            r#"outliers = { max_ejection = "1s" }"#,
            29,
            "outliers.max_ejection: is shorter than ejection (30s)",
        ),
        ("breaker = { requests = 0 }", 24, "breaker.requests: 0 is out of bounds"),
        ("panic_threshold = 2", 19, "panic_threshold: 2 is not a share"),
        ("slow_start = 0", 14, "slow_start: 0 has no unit"),
    ] {
        check_line(
            "[upstreams.b]\nendpoints = [\"http://a\"]",
            line,
            column,
            &format!("upstreams.b.{words}"),
        );
    }
    let https = "[upstreams.b]\nendpoints = [\"https://a\"]";
    check_line(https, r#"tls.ca_file = "none.pem""#, 15, "upstreams.b.tls.ca_file: the file \"none.pem\"");
    check_line(https, r#"tls.server_name = "a b""#, 19, "upstreams.b.tls.server_name: \"a b\" is not a name");
}

#[test]
fn each_key_of_telemetry_and_the_rest_is_checked() {
    for (table, line, column, words) in [
        ("telemetry", r#"service_name = """#, 16, "service_name: is empty"),
        ("telemetry", r#"otlp = "on""#, 8, "otlp: is a text, where a table belongs"),
        ("telemetry.otlp", r#"endpoint = "127.0.0.1:4317""#, 12, "endpoint: does not begin with http"),
        ("telemetry.otlp", r#"endpoint = "http://a/b""#, 12, "endpoint: has a path"),
        (
            "telemetry.otlp",
            r#"headers.a = { env = "NONE" }"#,
            21,
            "headers.a.env: the environment variable NONE",
        ),
        ("telemetry.otlp", "headers.a = {}", 13, "headers.a.file: is missing"),
        ("telemetry.otlp", "batch = 20000", 9, "batch: 20000 spans never gather"),
        ("telemetry.sampling", "ratio = 2", 9, "ratio: 2 is not a share"),
        ("telemetry.sampling", "keep_errors = 1", 15, "keep_errors: is the number 1, where true or false"),
        ("telemetry.sampling", "max_spans_per_second = 0", 24, "max_spans_per_second: 0 is out of bounds"),
        ("telemetry.sampling", "force = {}", 9, "force.token.file: is missing"),
        (
            "telemetry.sampling",
            r#"force.token.env = "NONE""#,
            19,
            "force.token.env: the environment variable",
        ),
        ("telemetry.resource", r#""service.name" = "a""#, 18, "\"service.name\": has its own key"),
        ("telemetry.access_log", r#"enabled = "yes""#, 11, "enabled: is a text, where true or false belongs"),
        ("telemetry.privacy", r#"client_address = "all""#, 18, "client_address: \"all\" is none of"),
        ("telemetry.recent", "errors = 0", 10, "errors: 0 is out of bounds"),
        ("telemetry.recent", "memory = 1", 10, "memory: 1 has no unit"),
        ("admin", r#"jaeger_url = "jaeger:16686/search""#, 14, "jaeger_url: is no URL of a page"),
        ("admin", r#"sessions = { age = "off" }"#, 20, "sessions.age: \"off\" is not a duration"),
        ("metrics", "buckets = [0, 1]", 12, "buckets[0]: 0 is not above 0"),
        ("dns", r#"min_ttl = "10m""#, 11, "min_ttl: is longer than max_ttl"),
        ("dns", r#"servers = ["dns.local"]"#, 12, "servers[0]: \"dns.local\" is not an IP address"),
        ("shutdown", r#"deadline = "off""#, 12, "deadline: \"off\" is not a duration"),
    ] {
        check_line(&format!("[{table}]"), line, column, &format!("{table}.{words}"));
    }
    let force = |header: &str, token: &str| {
        let written = format!("force = {{ header = '{header}', token = {{ env = 'TOKEN' }} }}");
        problems(&[&format!("{SMALL}[telemetry.sampling]\n{written}\n")], &[("TOKEN", token)])
    };
    let good = "0123456789abcdef";
    for (header, token, what) in [
        ("x-mine", good, &[][..]),
        (
            "x-mine",
            "short",
            &["routes.toml:12:38: telemetry.sampling.force.token: is short enough to be guessed"],
        ),
        (
            "authorization",
            good,
            &["routes.toml:12:20: telemetry.sampling.force.header: \"authorization\" cannot"],
        ),
        ("x-b3-flags", good, &["routes.toml:12:20: telemetry.sampling.force.header: \"x-b3-flags\" cannot"]),
    ] {
        let found = force(header, token);
        let same = found.iter().zip(what).all(|(found, what)| found.starts_with(what));
        assert!(found.len() == what.len() && same, "{found:#?}");
    }
    let batch = "routes.toml:13:9: telemetry.otlp.batch: 101 spans never gather in a queue of 100";
    check("[telemetry.otlp]\nqueue = 100\nbatch = 101", &[batch]);
    check("[telemetry.otlp]\nqueue = 100", &[]);
    check("[telemtry]", &["routes.toml:11:2: telemtry: is not a key"]);
}

#[test]
fn each_key_of_a_route_is_checked() {
    for (line, column, words) in [
        (r#"listeners = ["publik"]"#, 14, "listeners[0]: there is no listener \"publik\""),
        ("listeners = []", 13, "listeners: is empty"),
        ("retries = 1", 1, "retries: is not a key"),
        (r#"host = "endpiont""#, 8, "host: \"endpiont\" is none of"),
        (r#"operation = "Order""#, 13, "operation: \"Order\" is not the name of an operation"),
        (
            r#"attributes."http.id".path = "x""#,
            12,
            "attributes.\"http.id\": attributes that begin with http.",
        ),
        (r#"attributes.a.request_header = "cookie""#, 31, "attributes.a.request_header: cookie holds"),
        ("attributes.a = {}", 16, "attributes.a: does not say where"),
        (
            r#"attributes.a = { path = "x", request_header = "y" }"#,
            47,
            "attributes.a.request_header: a value is",
        ),
        (r#"rewrite_path = "/{y}""#, 16, "rewrite_path: the path \"/b/{x}\" has no parameter y"),
        (r#"strip_prefix = "/b/{x}""#, 16, "strip_prefix: \"/b/{x}\" has a parameter"),
        (r#"match.headers."a b" = true"#, 23, "match.headers.\"a b\": \"a b\" is not the name"),
        ("match.headers.a = false", 19, "match.headers.a: cannot be false"),
        (r#"match.methods = ["TRACE"]"#, 18, "match.methods[0]: TRACE is never routed"),
        ("timeouts.request = 0", 20, "timeouts.request: 0 has no unit"),
        ("sampling.ratio = -0.1", 18, "sampling.ratio: -0.1 is not a share"),
        ("slow_after = 1", 14, "slow_after: 1 has no unit"),
        (r#"limits.body = "1K""#, 15, "limits.body: \"1K\" is not a size"),
    ] {
        let route = "[routes.b]\nupstream = \"shop\"\nmatch.path = \"/b/{x}\"";
        check_line(route, line, column, &format!("routes.b.{words}"));
    }
    check("[routes.b]\nupstream = \"shop\"", &["routes.toml:11:1: routes.b.match.path: is missing"]);
    let both = "strip_prefix = \"/shop\"\nrewrite_path = \"/a\"";
    check(both, &["routes.toml:12:16: routes.shop.rewrite_path: cannot be used with strip_prefix"]);
}

#[test]
fn names_are_checked_where_they_stand() {
    for (name, what) in [("Shop", "is not a name"), ("b__c", "has two underscores in a row")] {
        let expected = format!("routes.toml:11:12: upstreams.{name}: \"{name}\" {what}");
        check(&format!("[upstreams.{name}]\nendpoints = [\"http://a\"]"), &[&expected]);
    }
}

#[test]
fn what_is_not_toml_does_not_hide_what_is_wrong_elsewhere() {
    let found = problems(&["[admin]\naddress = =\n", "[dns]\nmin_ttl = 5\n"], &[]);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("routes.toml:2:11: is not TOML"), "{found:#?}");
    assert_eq!(found[1], "more1.toml:2:11: dns.min_ttl: 5 has no unit");
}

#[test]
fn no_listener_is_a_problem() {
    assert_eq!(problems(&[""], &[]), ["routes.toml:1:1: listeners: there is no listener"]);
}

#[test]
fn later_files_override_earlier_ones_key_by_key() {
    let more = "[upstreams.shop]\nbalance = \"round_robin\"\n[upstreams.shop.pool]\nidle = \"9s\"\n";
    let upstream = &loaded(&[SMALL, more], &[]).upstreams[0];
    assert_eq!(upstream.rules.balance, upstream::Balance::RoundRobin);
    assert_eq!(upstream.pool.idle, Duration::from_secs(9));
    assert_eq!(upstream.endpoints.len(), 1);

    let wrong = "[upstreams.shop]\nendpoints = [\"a\"]\n";
    assert!(problems(&[SMALL, wrong], &[])[0].starts_with("more1.toml:2:14: upstreams.shop.endpoints[0]"));
    assert_eq!(
        loaded(&[wrong, SMALL], &[]).upstreams[0].endpoints.len(),
        1,
        "what is overridden is not in force"
    );
}

#[test]
fn the_environment_overrides_the_files() {
    let environment = [
        ("TRACEGATE_UPSTREAMS__SHOP__ENDPOINTS", r#"["http://10.0.0.7:9001", "http://10.0.0.8:9001"]"#),
        ("TRACEGATE_UPSTREAMS__SHOP__POOL__IDLE", "9s"),
        ("TRACEGATE_UPSTREAMS__SHOP__HEALTH", r#"{path = "/healthz", statuses = [204, "200-201"]}"#),
        ("TRACEGATE_TELEMETRY__SAMPLING__RATIO", "0.25"),
        ("TRACEGATE_SHUTDOWN__DRAIN_DELAY", "off"),
        ("TRACEGATE_PORT", "tcp://10.0.0.1:80"),
        ("OTHER__KEY", "1"),
    ];
    let settings = loaded(&[SMALL], &environment);
    assert_eq!(settings.upstreams[0].endpoints.len(), 2);
    assert_eq!(settings.upstreams[0].pool.idle, Duration::from_secs(9));
    assert!((settings.telemetry.sampling.ratio - 0.25).abs() < f64::EPSILON);
    assert_eq!(settings.shutdown.drain_delay, Duration::ZERO);
    let checked = format!("{:?}", settings.upstreams[0].health);
    assert!(checked.contains("statuses: [(204, 204), (200, 201)]"), "{checked}");
}

#[test]
fn what_is_wrong_in_the_environment_names_the_variable() {
    for (name, value, expected) in [
        (
            "TRACEGATE_UPSTREAMS__SHOP__ENDPOINTS",
            "[a]",
            ": upstreams.shop.endpoints[0]: \"a\" does not begin",
        ),
        ("TRACEGATE_UPSTREAMS__SHPO__ENDPOINTS", "[a]", ": upstreams.shpo.endpoints: no file has the table"),
        ("TRACEGATE_UPSTREAMS__SHOP__ENDPOINT", "[a]", ": upstreams.shop.endpoint: is not a key"),
        ("TRACEGATE_TELEMETRI__SERVICE_NAME", "a", ": telemetri: is not a key"),
        ("TRACEGATE_DNS__MIN_TTL", "10", ": dns.min_ttl: 10 has no unit"),
        ("TRACEGATE_AUTH__STAF__MTLS", "{}", ": auth.staf.mtls: no file has the table"),
        (
            "TRACEGATE_AUTH__STAFF__API_KEYS__KEYS__ACMEE__SHA256",
            "a",
            ": auth.staff.api_keys.keys.acmee.sha256: no file has the table",
        ),
        ("TRACEGATE_ADMIN__TOKENS__PROM__ROLE", "metrics", ": admin.tokens.prom.role: no file has the table"),
        (
            "TRACEGATE_UPSTREAMS__SHOP__HEALTH__STATUSES",
            "[18446744073709551615]",
            ": upstreams.shop.health.statuses[0]: \"18446744073709551615\" is not a range of statuses",
        ),
    ] {
        let more = format!(
            "[upstreams.shop.health]\npath = \"/healthz\"\n[auth.staff.api_keys.keys]\nacme = {{ sha256 = \"{}\" }}\n",
            "a".repeat(64)
        );
        let found = problems(&[SMALL, &more], &[(name, value)]);
        assert!(matches!(&found[..], [one] if one.starts_with(&format!("{name}{expected}"))), "{found:#?}");
    }
}

#[test]
fn routes_inherit_key_by_key() {
    let own = "timeouts = { request = \"5s\" }";
    let defaults = "[defaults.route]\ntimeouts = { request = \"10s\", attempt = \"3s\" }";
    let timeouts = loaded(&[&format!("{SMALL}{own}\n{defaults}\n")], &[]).routes[0].timeouts.clone();
    assert_eq!(timeouts.request, Some(Duration::from_secs(5)));
    assert_eq!(timeouts.attempt, Some(Duration::from_secs(3)));
    assert_eq!(timeouts.stream_idle, Some(Duration::from_mins(1)));
}

#[test]
fn what_is_wrong_with_an_inherited_value_is_told_once_where_it_stands() {
    let route = "[routes.b]\nmatch = { path = \"/b\" }\n[defaults.route]\n";
    check(
        &format!("{route}timeouts = {{ request = 5, tries = 3 }}\nupstream = \"shpo\"\n"),
        &[
            "routes.toml:14:24: defaults.route.timeouts.request: 5 has no unit",
            "routes.toml:14:27: defaults.route.timeouts.tries: is not a key",
            "routes.toml:15:12: defaults.route.upstream: there is no upstream \"shpo\"",
        ],
    );
    let alone = "[listeners.a]\naddress = \"127.0.0.1:0\"\n[defaults.route]\nhost = \"kep\"\n";
    assert_eq!(problems(&[alone], &[]).len(), 1, "it is wrong even if no route inherits it");
}

#[test]
fn only_routes_that_match_one_request_equally_well_tie() {
    let ties = |a: &str, b: &str| {
        let text = format!(
            "{SMALL}[listeners.b]\naddress = \"127.0.0.1:0\"\n\
             [routes.a]\nupstream = \"shop\"\n{a}\n[routes.b]\nupstream = \"shop\"\n{b}\n"
        );
        let problems = load(&sources(&[&text], &[])).err().unwrap_or_default();
        problems.iter().any(|problem| problem.to_string().contains("routes.b.match.path: ties with routes.a"))
    };
    for (a, b, tie) in [
        ("match = { path = \"/a\" }", "match = { path = \"/a\" }", true),
        ("match = { path = \"/a/{x}\" }", "match = { path = \"/a/{y}\" }", true),
        ("match = { path = \"/a/{x}\" }", "match = { path = \"/a/{*y}\" }", false),
        ("match = { path = \"/a\" }", "match = { path = \"/a/{*y}\" }", false),
        ("match = { path = \"/a/\" }", "match = { path = \"/a/{*y}\" }", false),
        ("match = { path = \"/a\" }", "match = { path = \"/{x}\" }", false),
        (
            "match = { path = \"/a\", methods = [\"GET\"] }",
            "match = { path = \"/a\", methods = [\"POST\"] }",
            false,
        ),
        (
            "match = { path = \"/a\", methods = [\"GET\", \"PUT\"] }",
            "match = { path = \"/a\", methods = [\"PUT\"] }",
            true,
        ),
        ("match = { path = \"/a\", methods = [\"GET\"] }", "match = { path = \"/a\" }", false),
        ("match = { path = \"/a\", hosts = [\"a\"] }", "match = { path = \"/a\", hosts = [\"b\"] }", false),
        (
            "match = { path = \"/a\", hosts = [\"a\", \"b\"] }",
            "match = { path = \"/a\", hosts = [\"B\"] }",
            true,
        ),
        (
            "match = { path = \"/a\", hosts = [\"*.b\"] }",
            "match = { path = \"/a\", hosts = [\"a.b\"] }",
            false,
        ),
        (
            "match = { path = \"/a\", headers = { h = \"1\" } }",
            "match = { path = \"/a\", headers = { h = \"2\" } }",
            false,
        ),
        (
            "match = { path = \"/a\", headers = { h = \"1\" } }",
            "match = { path = \"/a\", headers = { H = \"1\" } }",
            true,
        ),
        (
            "match = { path = \"/a\", headers = { h = \"1\" } }",
            "match = { path = \"/a\", headers = { i = true } }",
            true,
        ),
        ("match = { path = \"/a\", headers = { h = \"1\" } }", "match = { path = \"/a\" }", false),
        (
            "match = { path = \"/a\" }\nlisteners = [\"public\"]",
            "match = { path = \"/a\" }\nlisteners = [\"b\"]",
            false,
        ),
        ("match = { path = \"/a\" }\nlisteners = [\"public\"]", "match = { path = \"/a\" }", true),
    ] {
        assert_eq!(ties(a, b), tie, "{a}\n{b}");
    }
}

#[test]
fn paths_that_the_router_cannot_hold_together_are_a_problem() {
    let crossing = |a: &str, b: &str| {
        let routes = [("a", a), ("b", b)]
            .map(|(name, text)| format!("[routes.{name}]\nupstream = \"shop\"\n{text}\n"));
        let found = problems(&[&format!("{SMALL}{}", routes.concat())], &[]);
        let expected = "routes.toml:16:18: routes.b.match.path: the router cannot hold it beside routes.a";
        assert!(found.is_empty() || found == [expected], "{found:#?}");
        !found.is_empty()
    };
    let path = |path: &str, more: &str| format!("match = {{ path = \"{path}\"{more} }}");
    for (a, b, refused) in [
        (path("/a/{x}.json", ""), path("/a/v{x}", ""), true),
        (path("/a/{x}.json", ", methods = [\"GET\"]"), path("/a/v{x}", ", methods = [\"HEAD\"]"), true),
        (path("/a/{x}.json", ""), path("/a/v{x}", ", methods = [\"PUT\"]"), true),
        (path("/a/{x}.json", ", methods = [\"GET\"]"), path("/a/v{x}", ", methods = [\"PUT\"]"), false),
        (path("/a/{x}.json", ", hosts = [\"a\"]"), path("/a/v{x}", ", hosts = [\"b\"]"), false),
        (path("/a/{x}.json", ""), path("/a/v{x}", ", hosts = [\"b\"]"), false),
        (path("/a/{x}", ""), path("/a/{y}.json", ""), false),
        (path("/{*rest}", ""), path("/{x}/y", ""), false),
        (path("/{*rest}", ""), path("/{x}/y/{*r}", ""), true),
        (path("/a/{*rest}", ""), path("/{x}/b", ""), false),
        (path("/a/{x}", ""), path("/a/{y}/b", ""), false),
    ] {
        assert_eq!(crossing(&a, &b), refused, "{a}\n{b}");
    }
}

#[test]
fn otel_variables_count_where_the_file_is_silent() {
    let environment = [
        ("OTEL_SERVICE_NAME", "from-environment"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=no,deployment.environment.name=a%20b"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20hunter2,x-a=b"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2048"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", ""),
    ];
    let telemetry =
        loaded(&[&format!("{SMALL}[telemetry.otlp]\nbatch = 100\ntimeout = \"1s\"\n")], &environment)
            .telemetry;
    assert_eq!(&*telemetry.service_name, "from-environment");
    assert_eq!(telemetry.resource, [("deployment.environment.name".into(), "a b".into())]);
    assert!((telemetry.sampling.ratio - 0.5).abs() < f64::EPSILON);
    assert!(!format!("{telemetry:?}").contains("hunter2"));
    let otlp = telemetry.otlp.expect("it is on");
    let receiver = otlp.receiver;
    let headers: Vec<_> =
        receiver.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("authorization", "Bearer hunter2"), ("x-a", "b")]);
    assert_eq!((receiver.timeout, receiver.gzip), (Duration::from_secs(1), true));
    assert_eq!((receiver.queue, receiver.batch), (2048, 100));
}

#[test]
fn the_endpoint_of_traces_is_made_as_the_standard_says() {
    let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let generic = |url| ("OTEL_EXPORTER_OTLP_ENDPOINT", url);
    let traces = |url| ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url);
    for (environment, file, endpoint) in [
        (&[][..], "", "http://127.0.0.1:4317"),
        (&[http], "", "http://127.0.0.1:4318/v1/traces"),
        (&[generic("http://a:4317")], "", "http://a:4317"),
        (&[http, generic("http://a:4318")], "", "http://a:4318/v1/traces"),
        (&[http, generic("http://a:4318/base/")], "", "http://a:4318/base/v1/traces"),
        (&[http, traces("http://a:4318/x"), generic("http://b")], "", "http://a:4318/x"),
        (&[http, traces("http://a:4318")], "", "http://a:4318/"),
        (&[generic("http://a:4318")], "protocol = \"http/protobuf\"", "http://a:4318/v1/traces"),
        (&[http, generic("http://a:4318")], "endpoint = \"http://b:4318\"", "http://b:4318/v1/traces"),
        (&[http], "endpoint = \"http://b:4318/otlp\"", "http://b:4318/otlp"),
    ] {
        let found = otlp(environment, &format!("[telemetry.otlp]\n{file}\n")).expect("it is on");
        assert_eq!(&*found.receiver.endpoint, endpoint, "{environment:?} {file}");
    }
}

#[test]
fn export_is_switched_off_by_the_file_or_where_it_is_silent_by_the_environment() {
    let disabled = [("OTEL_SDK_DISABLED", "true")];
    assert!(otlp(&disabled, "").is_none());
    assert!(otlp(&[("OTEL_TRACES_EXPORTER", "none")], "").is_none());
    assert!(
        otlp(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4317")], "[telemetry]\notlp = \"off\"\n").is_none()
    );
    assert!(
        otlp(&disabled, "[telemetry.otlp]\nprotocol = \"grpc\"\n")
            .is_some_and(|otlp| otlp.protocol == OtlpProtocol::Grpc)
    );
}

#[test]
fn a_zipkin_receiver_is_on_where_the_file_or_the_environment_names_it() {
    let exporter = |words| ("OTEL_TRACES_EXPORTER", words);
    let endpoint = ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", "http://a:9411/x");
    let table = "[telemetry.zipkin]\n";
    for (environment, more, otlp, zipkin) in [
        (&[][..], "", true, None),
        (&[endpoint], "", true, None),
        (&[exporter("zipkin")], "", false, Some("http://localhost:9411/api/v2/spans")),
        (&[exporter("otlp, zipkin"), endpoint], "", true, Some("http://a:9411/x")),
        (&[exporter("zipkin")], "[telemetry]\nzipkin = \"off\"\n", false, None),
        (&[], table, true, Some("http://127.0.0.1:9411/api/v2/spans")),
        (&[endpoint], table, true, Some("http://a:9411/x")),
        (&[endpoint], "[telemetry]\nzipkin.endpoint = \"http://b:9411\"\n", true, {
            Some("http://b:9411/api/v2/spans")
        }),
    ] {
        let telemetry = loaded(&[&format!("{SMALL}{more}")], environment).telemetry;
        let found = telemetry.zipkin.as_ref().map(|zipkin| &*zipkin.endpoint);
        assert_eq!((telemetry.otlp.is_some(), found), (otlp, zipkin), "{environment:?} {more}");
    }
    let batches = [("OTEL_BSP_MAX_QUEUE_SIZE", "600"), ("OTEL_EXPORTER_ZIPKIN_TIMEOUT", "250")];
    let zipkin = loaded(&[&format!("{SMALL}{table}")], &batches).telemetry.zipkin.expect("it is on");
    assert_eq!((zipkin.queue, zipkin.timeout), (600, Duration::from_millis(250)));
}

#[test]
fn what_is_wrong_in_an_otel_variable_names_it() {
    for (name, value, key) in [
        ("OTEL_SDK_DISABLED", "yes", "telemetry.otlp"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "telemetry.sampling.ratio"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "telemetry.otlp.protocol"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s", "telemetry.otlp.timeout"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "telemetry.otlp.headers"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "a:4317", "telemetry.otlp.endpoint"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/none.pem", "telemetry.otlp.tls.ca_file"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/none.pem", "telemetry.otlp.tls.certificate_file"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/none.pem", "telemetry.otlp.tls.key_file"),
        ("OTEL_TRACES_EXPORTER", "otlp,console", "telemetry.otlp"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "telemetry.otlp.queue"),
    ] {
        let found = problems(&[SMALL], &[(name, value)]);
        let expected = format!("{name}: {key}: ");
        assert!(
            matches!(&found[..], [one] if one.starts_with(&expected) && !one.contains("hunter2")),
            "{found:#?}"
        );
    }
}

/// A certificate, its key, another one's key and a secret.
fn certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    for (name, text) in [
        ("cert.pem", made.cert.pem()),
        ("key.pem", made.signing_key.serialize_pem()),
        ("other.pem", other.signing_key.serialize_pem()),
        ("token", "Bearer hunter2\n".to_owned()),
    ] {
        std::fs::write(directory.path().join(name), text).expect("a file");
    }
    directory
}

#[test]
fn certificates_and_secrets_are_loaded_as_run_would() {
    let directory = certificates();
    let text = |key: &str| {
        let tls = format!("{{ certificate_file = \"cert.pem\", key_file = \"{key}\" }}");
        format!(
            "[listeners.a]\naddress = \"127.0.0.1:0\"\ntls = {tls}\n\
             [upstreams.b]\nendpoints = [\"https://localhost\"]\ntls = {{ ca_file = \"cert.pem\" }}\n\
             [telemetry.otlp.headers]\nauthorization = {{ file = \"token\" }}\n"
        )
    };
    let load =
        |key: &str| load(&Sources { directory: directory.path().into(), ..sources(&[&text(key)], &[]) });

    let settings = load("key.pem").unwrap_or_else(|problems| panic!("{problems}"));
    assert!(settings.listeners[0].tls.is_some() && settings.upstreams[0].tls.is_some());
    assert_eq!(settings.telemetry.otlp.expect("it is on").receiver.headers[0].1.expose(), "Bearer hunter2");
    for (key, place) in [
        ("other.pem", "3:28: listeners.a.tls.certificate_file"),
        ("none.pem", "3:51: listeners.a.tls.key_file"),
    ] {
        let problems = load(key).expect_err(key).to_string();
        assert!(problems.starts_with(&format!("routes.toml:{place}: ")), "{problems}");
    }
}

#[test]
fn a_receivers_certificates_are_loaded_and_each_fault_is_named() {
    let directory = certificates();
    for (tls, fault) in [
        ("", None),
        ("ca_file = 'cert.pem', server_name = 'localhost'", None),
        ("certificate_file = 'cert.pem', key_file = 'key.pem'", None),
        ("certificate_file = 'cert.pem'", Some("certificate_file: has no key")),
        ("key_file = 'key.pem'", Some("key_file: has no certificate")),
        ("ca_file = 'key.pem'", Some("ca_file: the file cannot be used")),
        (
            "certificate_file = 'cert.pem', key_file = 'other.pem'",
            Some("certificate_file: the file cannot be used"),
        ),
        ("certificate_file = 'cert.pem', key_file = 'none.pem'", Some("key_file: the file cannot be used")),
        ("certificate_file = 'key.pem', key_file = 'key.pem'", Some("certificate_file: the file cannot be")),
    ] {
        for receiver in ["otlp", "zipkin"] {
            let table = format!("[telemetry.{receiver}]\nendpoint = 'https://a'\ntls = {{ {tls} }}\n");
            let sources = sources(&[&format!("{SMALL}{table}")], &[]);
            match (load(&Sources { directory: directory.path().into(), ..sources }), fault) {
                (Ok(settings), None) => {
                    let (otlp, zipkin) = (settings.telemetry.otlp, settings.telemetry.zipkin);
                    let otlp = otlp.is_some_and(|otlp| otlp.receiver.tls.is_some());
                    assert!(otlp || zipkin.is_some_and(|zipkin| zipkin.tls.is_some()), "{tls}");
                }
                (Err(problems), Some(fault)) => {
                    let fault = format!("telemetry.{receiver}.tls.{fault}");
                    assert!(problems.to_string().contains(&fault), "{tls}: {problems}");
                }
                (other, _) => panic!("{tls}: {:?}", other.err()),
            }
        }
    }
}

#[test]
fn what_a_route_must_not_shape_is_told_with_what_to_write_instead() {
    for (keys, expected) in [
        ("headers.request.set = { connection = \"close\" }", "connection belongs to one connection"),
        ("headers.request.set = { content-length = \"1\" }", "content-length tells where the message ends"),
        ("headers.request.remove = [\"traceparent\"]", "traceparent is the trace's context"),
        ("headers.request.set = { X-B3-TraceId = \"1\" }", "x-b3-traceid is the trace's context"),
        ("headers.request.set = { host = \"a\" }", "host is chosen elsewhere"),
        ("headers.request.set = { authorization = \"Bearer a\" }", "authorization is a secret"),
        ("headers.request.set = { x-forwarded-for = \"1\" }", "x-forwarded-for says who asked"),
        ("headers.request.set = { x-a = \"{nobody}\" }", "there is no {nobody}"),
        ("headers.request.set = { x-a = \"{a\" }", "has a brace that is none of a placeholder"),
        ("headers.request.set = { x-a = \"\\n\" }", "is not the value of a header field"),
        ("headers.request.set = { \"x a\" = \"\" }", "\"x a\" is not the name of a header field"),
        ("headers.response.set = { x-a = \"{rest}\" }", "there is no {rest}"),
        (
            "headers.response.set = { transfer-encoding = \"a\" }",
            "transfer-encoding tells where the message ends",
        ),
        (
            "headers.response.add = { access-control-allow-origin = \"*\" }",
            "access-control-allow-origin depends on who asks",
        ),
        (
            "headers.response.set = { strict-transport-security = \"a\" }",
            "strict-transport-security is only for answers with TLS",
        ),
        ("cors = { origins = [\"*\"], credentials = true }", "cannot be any with credentials"),
        ("cors = { origins = [] }", "is empty"),
        ("cors = { methods = [\"GET\"] }", "is missing"),
        ("hsts = { preload = true }", "is refused by the lists of browsers for these settings"),
        ("https_redirect = \"https://{host}\"", "would send clients to any host that they name"),
        ("https_redirect = \"http://shop.example\"", "\"http://shop.example\" is not an origin with TLS"),
        ("redirect = { to = \"/a\" }", "is never asked: the route answers itself"),
        ("error_page = { html_file = \"none.html\" }", "the file \"none.html\" cannot be read"),
        ("compression = { codings = [] }", "is empty: nothing would be compressed"),
        ("compression = { types = [\"text/event-stream\"] }", "is never compressed"),
        ("compression = { codings = [\"deflate\"] }", "deflate"),
        ("maintenance = { retry_after = \"1500ms\" }", "is told in whole seconds"),
    ] {
        let found = problems(&[&format!("{SMALL}{keys}\n")], &[]);
        assert!(matches!(&found[..], [one] if one.contains(expected)), "{keys}: {found:#?}");
    }
    let route = "[routes.b]\nmatch = { path = \"/b/{*rest}\" }\n";
    for (keys, expected) in [
        ("redirect = { to = \"https://{rest}\" }", "leaves it to the client where it leads"),
        ("redirect = { to = \"/a\", status = 200 }", "200 is not a status that belongs here"),
        ("redirect = { to = \"https://{host}{path}\" }", "would send clients to any host that they name"),
        ("respond = { status = 99 }", "99 is not a status that belongs here"),
        ("respond = { status = 204, body = \"a\" }", "cannot go with status 204"),
        ("respond = {}\nredirect = { to = \"/a\" }", "cannot be used with redirect"),
    ] {
        let found = problems(&[&format!("{SMALL}{route}{keys}\n")], &[]);
        assert!(matches!(&found[..], [one] if one.contains(expected)), "{keys}: {found:#?}");
    }
}

#[test]
fn an_old_name_counts_with_a_warning_where_it_stands() {
    let text = format!("{SMALL}[listeners.public.limits]\nstreams = 7\n");
    // which is not in the schema: editors complain of it
    let settings = load(&sources(&[&text], &[])).unwrap();
    assert_eq!(settings.listeners[0].limits.http2_streams, 7);
    let values = effective::effective(&sources(&[&text], &[]));
    let key = "listeners.public.limits.http2_streams";
    let place =
        values.iter().find(|known| known.key.to_string() == key).and_then(|known| known.place.clone());
    assert_eq!(place.map(|place| place.to_string()).as_deref(), Some("routes.toml:12:11"));
    let warnings: Vec<String> = settings.configuration.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "routes.toml:12:1: listeners.public.limits.streams: is called listeners.public.limits.http2_streams now\n  \
          help: write listeners.public.limits.http2_streams: the next release knows the old name no more"
        ]
    );
    // the last one wins, by whichever name
    let more = "[listeners.public.limits]\nhttp2_streams = 9\n";
    assert_eq!(loaded(&[&text, more], &[]).listeners[0].limits.http2_streams, 9);
    let settings =
        loaded(&[&format!("{SMALL}{more}")], &[("TRACEGATE_LISTENERS__PUBLIC__LIMITS__STREAMS", "8")]);
    assert_eq!(settings.listeners[0].limits.http2_streams, 8);
    assert!(
        settings
            .configuration
            .warnings
            .to_string()
            .starts_with("TRACEGATE_LISTENERS__PUBLIC__LIMITS__STREAMS: ")
    );
}

#[test]
fn an_old_name_beside_the_new_one_is_a_problem_and_so_is_its_value_where_it_stands() {
    check(
        "[listeners.public.limits]\nstreams = 7\nhttp2_streams = 7\n",
        &["routes.toml:12:1: listeners.public.limits.streams: is the old name of \
           listeners.public.limits.http2_streams, which is written as well"],
    );
    check(
        "[listeners.public.limits]\nstreams = \"many\"\n",
        &["routes.toml:12:11: listeners.public.limits.streams: is a text, where a whole number belongs"],
    );
}

#[test]
fn several_files_are_kept_as_one_that_says_the_same() {
    let more = "[upstreams.shop]\nendpoints = [\"http://127.0.0.1:9002\"]\n[routes.\"shop\".timeouts]\nrequest = \"5s\"\n";
    let texts = [SMALL.to_owned(), more.to_owned()];
    let one = as_one(&texts).unwrap_or_else(|problems| panic!("{problems}"));
    let (both, kept) = (loaded(&[SMALL, more], &[]), loaded(&[&one], &[]));
    assert_eq!(both.configuration.hash, kept.configuration.hash, "{one}");
    assert_eq!(as_one(&texts[..1]), Ok(SMALL.to_owned()), "one file is kept as it is, remarks included");
}
