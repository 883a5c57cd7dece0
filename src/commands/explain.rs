//! `tracegate explain`: what becomes of a request and why, or what a reason means and what to do about it.

mod answer;
pub(super) mod reasons;

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::check::{CONFIGURATION, Format};
use super::report;
use crate::failure::Reason;
use crate::gateway::Settings;
use crate::gateway::file::{self, Sources};
use crate::http::explain::{Question, explain as ask};
use crate::listener;
use crate::net::Resolver;
use crate::setting::check::nearest;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Upstream;

/// What `tracegate explain` may be told.
#[derive(Debug, Args)]
pub struct Options {
    /// A URL as pasted, whole or only its path; or a reason, such as `upstream_timeout`
    #[arg(value_name = "URL|REASON")]
    what: String,
    /// The method of the request
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: Method,
    /// A header field of the request, `Name: value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = field)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The listener it comes in at; without it the one that fits the URL
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The address that the connection comes from
    #[arg(long, value_name = "ADDRESS", default_value_t = answer::SOMEBODY)]
    from: IpAddr,
    /// A file of routes and settings; may be repeated, later files win key by key
    #[arg(long, value_name = "FILE", default_value = "routes.toml")]
    config: Vec<PathBuf>,
    /// How the answer is told
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// Explains a request or a reason on standard output. Secrets need not be there: nothing is sent.
pub fn explain(options: &Options) -> ExitCode {
    let answer = if is_word(&options.what) { of_reason(options) } else { of_url(options) };
    match answer {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err((code, error)) => {
            eprint!("{error}");
            ExitCode::from(code)
        }
    }
}

/// A text, or the exit code and what goes to standard error.
type Answer = Result<String, (u8, String)>;

/// Whether it is a word as reasons are, and no URL.
fn is_word(what: &str) -> bool {
    !what.is_empty() && what.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
}

fn of_reason(options: &Options) -> Answer {
    let word = options.what.to_ascii_lowercase();
    if let Some(reason) = Reason::ALL.iter().find(|reason| reason.word() == word) {
        return Ok(match options.format {
            Format::Text => reasons::text(*reason),
            Format::Json => format!("{:#}\n", reasons::object(*reason)),
        });
    }
    let words = || Reason::ALL.iter().map(|reason| reason.word());
    let help = match nearest(&word, words()) {
        Some(meant) => format!("tracegate explain {meant}"),
        None => format!("the reasons are {}; a URL has a slash", words().collect::<Vec<_>>().join(", ")),
    };
    Err((1, format!("error: there is no reason \"{}\"\n  help: {help}\n", options.what)))
}

fn of_url(options: &Options) -> Answer {
    let wrong = |error: String| (1, format!("error: {error}\n"));
    let sources = Sources::read(&options.config).map_err(|problems| {
        (CONFIGURATION, report::shown(&problems, &Sources::default(), report::is_colourful()))
    })?;
    let settings = file::load_without_secrets(&sources)
        .map_err(|problems| (CONFIGURATION, report::shown(&problems, &sources, report::is_colourful())))?;
    let pasted = Pasted::read(&options.what).map_err(wrong)?;
    let head = pasted.head(options).map_err(wrong)?;
    let listener = listener(&settings, &pasted, options.listener.as_deref()).map_err(wrong)?;
    let question = Question {
        listener,
        routes: &settings.routes,
        telemetry: &settings.telemetry,
        from: options.from,
        https: listener.tls.is_some(),
    };
    let metrics = Metrics::new(&settings.telemetry.metrics);
    let resolver = Resolver::new(&settings.dns);
    let upstream = |name: &str| {
        let known = settings.upstreams.iter().find(|known| *known.name == *name)?;
        Some(Upstream::new(known, &resolver, &metrics, None))
    };
    let asked = answer::Asked {
        settings: &settings,
        listener,
        method: options.method.clone(),
        url: options.what.clone(),
        path: pasted.path().to_owned(),
        head: head.clone(),
    };
    let explained = ask(question, head, upstream);
    Ok(match options.format {
        Format::Text => answer::text(&asked, &explained),
        Format::Json => format!("{:#}\n", answer::object(&asked, &explained)),
    })
}

/// The listener of this name; else the one whose port the URL has, else one that speaks what the URL does.
fn listener<'s>(
    settings: &'s Settings,
    pasted: &Pasted,
    name: Option<&str>,
) -> Result<&'s listener::Settings, String> {
    if let Some(name) = name {
        let known = || settings.listeners.iter().map(|listener| &*listener.name);
        return settings.listeners.iter().find(|listener| &*listener.name == name).ok_or_else(|| {
            format!("there is no listener \"{name}\"; there are {}", known().collect::<Vec<_>>().join(", "))
        });
    }
    let port = pasted.0.port_u16();
    let same_port = |listener: &&listener::Settings| {
        port.is_some() && listener.address.tcp().map(|address| address.port()) == port
    };
    let https = pasted.0.scheme_str() == Some("https");
    let same_scheme = |listener: &&listener::Settings| listener.tls.is_some() == https;
    let all = || settings.listeners.iter();
    let found = all().find(same_port).or_else(|| all().find(same_scheme)).or_else(|| all().next());
    found.ok_or_else(|| "there is no listener".to_owned())
}

/// A URL from an address bar, a log or a mail.
#[derive(Debug)]
struct Pasted(Uri);

impl Pasted {
    /// Reads it: without its fragment, which is never sent, and with spaces and foreign letters encoded, as browsers
    /// do.
    fn read(text: &str) -> Result<Self, String> {
        let text = text.trim().split('#').next().unwrap_or_default();
        let text = if text.starts_with('/') || text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let encoded = utf8_percent_encode(&text, OF_NO_URL).to_string();
        let uri = encoded.parse::<Uri>().map_err(|error| format!("\"{text}\" is not a URL: {error}"))?;
        Ok(Self(uri))
    }

    /// The path as it is sent.
    fn path(&self) -> &str {
        self.0.path()
    }

    fn head(&self, options: &Options) -> Result<request::Parts, String> {
        let target = self.0.path_and_query().map_or("/", |target| target.as_str());
        let mut request =
            Request::builder().method(options.method.clone()).version(Version::HTTP_11).uri(target);
        if !options.headers.iter().any(|(name, _)| name == HOST) {
            let host = self
                .0
                .authority()
                .map_or("localhost", |authority| authority.as_str().rsplit('@').next().unwrap_or_default());
            request = request.header(HOST, host);
        }
        for (name, value) in &options.headers {
            request = request.header(name, value);
        }
        let (head, ()) = request.body(()).map_err(|error| error.to_string())?.into_parts();
        Ok(head)
    }
}

/// What stands in no URL, and what browsers encode.
const OF_NO_URL: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`');

/// `Name: value`
fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as \"Name: value\"")?;
    let name = name.trim().parse().map_err(|_| "is not the name of a header field")?;
    let value = value.trim().parse().map_err(|_| "is not the value of a header field")?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::{Pasted, field, is_word};

    #[test]
    fn a_url_is_taken_as_it_was_pasted() {
        for (text, host, target) in [
            (
                "https://shop.example/shop/orders/42?page=2#top",
                Some("shop.example"),
                "/shop/orders/42?page=2",
            ),
            ("shop.example:8443/shop", Some("shop.example"), "/shop"),
            ("/shop//orders", None, "/shop//orders"),
            (" http://a/caf\u{e9} x ", Some("a"), "/caf%C3%A9%20x"),
            ("http://a", Some("a"), "/"),
        ] {
            let Pasted(uri) = Pasted::read(text).expect(text);
            let read = uri.path_and_query().map(http::uri::PathAndQuery::as_str);
            assert_eq!((uri.host(), read), (host, Some(target)), "{text}");
        }
    }

    #[test]
    fn a_word_is_a_reason_and_all_else_a_url() {
        for (what, word) in
            [("no_route", true), ("No_Route", true), ("/", false), ("a.example", false), ("", false)]
        {
            assert_eq!(is_word(what), word, "{what}");
        }
        assert!(field("X-Canary: 1").is_ok() && field("X-Canary").is_err());
    }
}
