//! Sentences about `tracegate top`, run as people run it where standard output is no terminal.

use std::process::{Command, Output};

use tracegate::setting::Hash;

use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::origin::{Answer, Origin, Seen};
use crate::support::within;

/// Answers orders, and 500 for the one that is called `bad`.
async fn shop() -> Origin {
    Origin::start(|seen: &Seen| match seen.target.as_str() {
        "/orders/bad" => Answer::status(500),
        _ => Answer::ok(),
    })
    .await
}

fn routes(shop: &Origin) -> String {
    format!(
        "[upstreams.shop]\nendpoints = ['http://{}']\n\
         [routes.order_read]\nmatch = {{ path = '/orders/{{order_id}}' }}\nupstream = 'shop'\n\
         attributes = {{ 'order.id' = {{ path = 'order_id' }} }}\n",
        shop.address
    )
}

fn token(role: &str) -> String {
    let hash = Hash::of(&format!("token-of-{role}")).digits();
    format!("[admin.tokens.{role}]\nrole = '{role}'\nsha256 = '{hash}'\n")
}

/// What `tracegate top` prints, with these arguments and this token in the environment.
async fn top(arguments: Vec<String>, token: Option<&str>) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracegate"));
    command.arg("top").args(arguments).env_remove("TRACEGATE_TOKEN");
    if let Some(token) = token {
        command.env("TRACEGATE_TOKEN", token);
    }
    let run = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stdout, stderr } = within("the end of top", run).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

fn at(gateway: &Gateway) -> Vec<String> {
    vec!["--admin".to_owned(), format!("http://{}", gateway.admin_address())]
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[tokio::test]
async fn without_a_terminal_everything_is_printed_once_as_text() {
    let shop = shop().await;
    let gateway = Gateway::start(&[&routes(&shop)]).await;
    assert_eq!(gateway.get("/orders/4711").await.status, 200);
    let bad = gateway.get("/orders/bad").await;
    assert_eq!(bad.status, 500);

    for more in [vec![], vec!["--once".to_owned()]] {
        let (succeeded, text, said) = top([at(&gateway), more].concat(), None).await;
        assert!(succeeded, "{said}");
        has(&text, &["ROUTES", "order_read", "UPSTREAMS", "shop  1 of 1 usable", &shop.address.to_string()]);
        has(&text, &["TRACES THAT FAILED", "500", "upstream_status", "order.id=bad", &bad.trace_id()]);
        has(&text, &["telemetry balances", "configuration: generation 1", "no listener has TLS"]);
        assert!(!text.contains("order.id=4711") && !text.contains('\u{1b}'), "{text}");
    }

    let (succeeded, text, said) = top(vec!["--admin".into(), "http://127.0.0.1:1".into()], None).await;
    assert!(!succeeded && text.is_empty());
    has(&said, &["cannot reach http://127.0.0.1:1"]);
}

#[tokio::test]
async fn the_token_comes_from_a_file_or_the_environment_and_shows_what_its_role_may_see() {
    let shop = shop().await;
    let tokens = ["metrics", "support", "developer"].map(token).concat();
    let gateway = Gateway::start(&[&format!("{}{tokens}", routes(&shop))]).await;

    let (succeeded, text, said) = top(at(&gateway), None).await;
    assert!(!succeeded && text.is_empty());
    has(&said, &["wants a token", "--token-file", "TRACEGATE_TOKEN"]);
    let (_, text, said) = top(at(&gateway), Some("token-of-nobody")).await;
    assert!(text.is_empty() && !said.contains("nobody"), "{said}");
    has(&said, &["does not know this token"]);
    let (_, _, said) = top(at(&gateway), Some("token-of-metrics")).await;
    has(&said, &["support, developer or operator"]);

    let (succeeded, text, said) = top(at(&gateway), Some("token-of-developer")).await;
    assert!(succeeded, "{said}");
    has(&text, &["order_read", "telemetry balances"]);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "token-of-support\n\n# as `tracegate token new` prints it\n").unwrap();
    let from_file = vec!["--token-file".to_owned(), file.display().to_string()];
    let (succeeded, text, said) = top([at(&gateway), from_file].concat(), Some("token-of-metrics")).await;
    assert!(succeeded, "{said}");
    has(&text, &["order_read", "for developers and operators"]);
}

#[tokio::test]
async fn an_admin_address_with_tls_is_asked_by_tls_and_only_if_it_is_who_it_should_be() {
    let shop = shop().await;
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.identity(&["127.0.0.1"]).write(directory.path());
    let authority_file = authority.write(directory.path()).display().to_string();
    let file = directory.path().join("routes.toml");
    let text = format!(
        "{}{}[admin.tls]\ncertificate_file = '{}'\nkey_file = '{}'\n",
        routes(&shop),
        token("operator"),
        certificate.display(),
        key.display()
    );
    let gateway = Gateway::start(&[&text]).await;
    // the file names the address as the one that runs has it
    let address = gateway.admin_address();
    std::fs::write(
        &file,
        format!("[listeners.public]\naddress = '127.0.0.1:8080'\n[admin]\naddress = '{address}'\n{text}"),
    )
    .unwrap();
    let arguments = |ca: bool| {
        let mut arguments = vec!["--config".to_owned(), file.display().to_string()];
        if ca {
            arguments.extend(["--ca".to_owned(), authority_file.clone()]);
        }
        arguments
    };
    let (succeeded, text, said) = top(arguments(true), Some("token-of-operator")).await;
    assert!(succeeded, "{said}");
    has(&text, &["order_read", "telemetry balances"]);

    let (succeeded, _, said) = top(arguments(false), Some("token-of-operator")).await;
    assert!(!succeeded, "an authority that nobody knows was trusted");
    has(&said, &[&format!("cannot reach https://{address}")]);
}
