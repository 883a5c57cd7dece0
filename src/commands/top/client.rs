//! Asks the admin address: where it is, with which token, and what its refusals mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderValue, StatusCode, Uri};
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;

use crate::gateway::file::{self, Sources};
use crate::net::fetch::{Coming, Page};
use crate::net::tls::{ClientTls, client_config};
use crate::net::{DnsSettings, Resolver};

/// Where the admin address is, and how we are let in.
#[derive(Debug, Clone)]
pub(super) struct Client {
    base: Uri,
    tls: Option<ClientTls>,
    authorization: Option<HeaderValue>,
    resolver: Resolver,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The gateway does not let us in: to ask again is of no use.
    Forbidden(String),
    /// What was asked for is not there.
    Absent,
    /// Perhaps later.
    Later(String),
}

impl Refusal {
    /// A sentence for whoever asked.
    pub(super) fn sentence(&self) -> &str {
        match self {
            Self::Forbidden(why) | Self::Later(why) => why,
            Self::Absent => "it is no longer kept",
        }
    }
}

impl Client {
    /// A client of the admin address at this URL. `ca` is whom to trust, with TLS; else the public authorities.
    pub(super) fn new(base: Uri, ca: Option<&Path>, token: Option<&str>) -> Result<Self, String> {
        let host = base.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tls = match base.scheme_str() {
            Some("http") if ca.is_some() => return Err("--ca is for URLs that begin with https://".into()),
            Some("http") => None,
            Some("https") => {
                let server_name = ServerName::try_from(host).map_err(|error| error.to_string())?;
                Some(ClientTls { config: client_config(ca, None, &[b"http/1.1"])?, server_name })
            }
            _ => return Err("a URL that begins with http:// or https:// is needed".into()),
        };
        let authorization = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
        let mut authorization =
            authorization.transpose().map_err(|_| "the token has a character that none has")?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        // each connection asks anew
        let dns = DnsSettings { servers: Vec::new(), min_ttl: Duration::ZERO, max_ttl: Duration::ZERO };
        Ok(Self { base, tls, authorization, resolver: Resolver::new(&dns) })
    }

    /// The admin address, as people write it.
    pub(super) fn address(&self) -> String {
        let authority = self.base.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.base.scheme_str().unwrap_or("http"))
    }

    /// The answer of this path.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        let answer = self.page(path).get(MOST, PATIENCE).await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        self.judge(answer.status())?;
        serde_json::from_slice(answer.body()).map_err(|error| {
            Refusal::Later(format!(
                "{}{path} does not answer as a gateway of this version: {error}",
                self.address()
            ))
        })
    }

    /// The answer of this path, whose body is still to come.
    pub(super) async fn open(&self, path: &str) -> Result<Coming, Refusal> {
        let coming = self.page(path).open(PATIENCE).await.map_err(|error| self.unreachable(&error))?;
        self.judge(coming.head.status)?;
        Ok(coming)
    }

    fn page(&self, path: &str) -> Page {
        let url = format!("{}{path}", self.address()).parse().unwrap_or_else(|_| self.base.clone());
        let page = Page::new(&url, self.tls.clone(), &self.resolver);
        match &self.authorization {
            Some(authorization) => page.with_authorization(authorization.clone()),
            None => page,
        }
    }

    fn unreachable(&self, error: &str) -> Refusal {
        Refusal::Later(format!("cannot reach {}: {error}", self.address()))
    }

    fn judge(&self, status: StatusCode) -> Result<(), Refusal> {
        let address = self.address();
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::UNAUTHORIZED if self.authorization.is_none() => Err(Refusal::Forbidden(format!(
                "{address} wants a token: --token-file FILE, or the variable {TOKEN} (tracegate token new makes one)"
            ))),
            StatusCode::UNAUTHORIZED => {
                Err(Refusal::Forbidden(format!("{address} does not know this token, or it has expired")))
            }
            StatusCode::FORBIDDEN => Err(Refusal::Forbidden(format!(
                "{address} does not show this to us: a token of the role support, developer or operator is needed"
            ))),
            StatusCode::NOT_FOUND => Err(Refusal::Absent),
            status => Err(Refusal::Later(format!("{address} answers {status}"))),
        }
    }
}

/// The admin address that these files configure; by loopback where it listens everywhere. Without files, the default.
pub(super) fn configured(paths: &[PathBuf]) -> Result<Uri, String> {
    let only_default = [PathBuf::from(DEFAULT_FILE)];
    let paths = match paths {
        [] if !Path::new(DEFAULT_FILE).exists() => return Ok(Uri::from_static(DEFAULT)),
        [] => &only_default,
        paths => paths,
    };
    let settings = Sources::read(paths).and_then(|sources| file::load(&sources));
    let settings =
        settings.map_err(|problems| format!("{problems}\n(or name the admin address: --admin URL)"))?;
    let mut address = settings.admin.address;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let scheme = if settings.admin.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{address}/").parse().map_err(|error| format!("{address}: {error}"))
}

/// The token of this file, else of the environment. It never stands on the command line, where everybody reads it.
pub(super) fn token(file: Option<&Path>) -> Result<Option<String>, String> {
    let text = match file {
        Some(file) => {
            Some(std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?)
        }
        None => std::env::var(TOKEN).ok(),
    };
    // what `tracegate token new` prints has the token alone on its first line
    let first = text.as_deref().and_then(|text| text.lines().next()).map(str::trim);
    let token = first.filter(|token| !token.is_empty()).map(str::to_owned);
    match (file, &token) {
        (Some(file), None) => Err(format!("{}: its first line has no token", file.display())),
        _ => Ok(token),
    }
}

/// Without `__`, so that it is no configuration.
pub(super) const TOKEN: &str = "TRACEGATE_TOKEN";
const DEFAULT_FILE: &str = "routes.toml";
const DEFAULT: &str = "http://127.0.0.1:9901/";
/// An admin address that needs longer for the head of an answer is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of an answer.
const MOST: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::StatusCode;

    use super::{Client, Refusal, token};

    #[test]
    fn the_token_is_the_first_line_of_its_file() {
        for (text, expected) in [
            ("tg_abc\n\n# The line above is the token\n[admin.tokens.x]\n", Ok(Some("tg_abc".to_owned()))),
            ("  tg_abc", Ok(Some("tg_abc".to_owned()))),
            ("\ntg_abc", Err(())),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert_eq!(token(Some(file.path())).map_err(|_| ()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do_and_never_the_token() {
        let client = |token| Client::new("http://127.0.0.1:9901".parse().unwrap(), None, token).unwrap();
        let refused = |token, status| client(token).judge(status).unwrap_err();
        let without = refused(None, StatusCode::UNAUTHORIZED);
        assert!(without.sentence().contains("--token-file"), "{without:?}");
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            let with = refused(Some("tg_secret"), status);
            assert!(matches!(with, Refusal::Forbidden(_)), "{with:?}");
            assert!(!with.sentence().contains("secret"), "{with:?}");
        }
        assert!(matches!(refused(None, StatusCode::SERVICE_UNAVAILABLE), Refusal::Later(_)));
        assert!(!format!("{:?}", client(Some("tg_secret"))).contains("secret"));
    }

    #[test]
    fn only_http_and_https_are_asked_and_authorities_are_for_tls() {
        let client = |url: &str, ca: Option<&str>| {
            Client::new(url.parse().unwrap(), ca.map(std::path::Path::new), None)
                .map(|client| client.address())
        };
        assert_eq!(client("http://127.0.0.1:9901/anything", None).unwrap(), "http://127.0.0.1:9901");
        assert_eq!(client("https://gateway:9901", None).unwrap(), "https://gateway:9901");
        for (url, ca, part) in [
            ("ftp://gateway", None, "http://"),
            ("gateway", None, "http://"),
            ("http://gateway", Some("ca.pem"), "--ca"),
            ("https://gateway", Some("no-such-file.pem"), "no-such-file.pem"),
        ] {
            let error = client(url, ca).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
