//! `tracegate healthcheck`: asks a running gateway whether it is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;

use crate::admin;
use crate::gateway::file::{self, Sources};
use crate::net::once;

/// What `tracegate healthcheck` may be told.
#[derive(Debug, Args)]
pub struct Options {
    /// A configuration file; may be repeated
    #[arg(long, value_name = "FILE", default_value = "routes.toml")]
    config: Vec<PathBuf>,
    #[arg(long, value_name = "URL", conflicts_with = "config", help = URL_HELP)]
    url: Option<Uri>,
}

/// Asks, and says why if the answer is not ok. Docker knows exit codes 0 and 1 only.
pub fn healthcheck(options: &Options) -> ExitCode {
    match outcome(options) {
        Ok(()) => {
            println!("ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn outcome(options: &Options) -> Result<(), String> {
    let url = match &options.url {
        Some(url) => url.clone(),
        None => configured(&options.config)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let outcome = runtime.block_on(ask(&url)).map_err(|error| format!("{url}: {error}"));
    runtime.shutdown_background();
    outcome
}

fn configured(paths: &[PathBuf]) -> Result<Uri, String> {
    let settings = Sources::read(paths).and_then(|sources| file::load(&sources));
    let settings = settings.map_err(|problems| problems.to_string())?;
    if settings.admin.tls.is_some() && settings.admin.probes.is_none() {
        return Err("the admin address speaks TLS: add [probes] with an address to be asked there".into());
    }
    let admin::Settings { address, probes, .. } = settings.admin;
    let url = format!("http://{}/readyz", probe_address(address, probes));
    Ok(url.parse().expect("an address makes a valid URL"))
}

/// Where readiness is asked for: what listens on every address is reached by loopback.
fn probe_address(admin: SocketAddr, probes: Option<SocketAddr>) -> SocketAddr {
    let mut address = probes.unwrap_or(admin);
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

async fn ask(url: &Uri) -> Result<(), String> {
    let (Some("http"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err("a URL that begins with http:// is needed".into());
    };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((name, authority.port_u16().unwrap_or(80))).await;
    let address = found.map_err(|error| error.to_string())?.next().ok_or("the name has no address")?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, authority.as_str()).body(Full::<Bytes>::default());
    let request = request.map_err(|error| error.to_string())?;
    match once::send(address, request, PATIENCE).await.map_err(|error| error.to_string())?.status() {
        StatusCode::OK => Ok(()),
        status => Err(format!("not ready, it answers {status}")),
    }
}

const URL_HELP: &str =
    "Ask this instead of what the configuration says, such as http://127.0.0.1:9901/readyz";
/// A gateway that needs longer than this is not ready.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Request, Response, Uri};
    use http_body_util::Full;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::{ask, probe_address};
    use crate::net::serve::{Bounds, serve};

    #[tokio::test]
    async fn only_an_answer_of_200_counts_as_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = service_fn(|request: Request<Incoming>| async move {
            let status = request.uri().path().trim_start_matches('/').parse::<u16>().unwrap();
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
        });
        let long = Duration::from_mins(1);
        let bounds =
            Bounds { connections: 1, head: long, age: long, exchange: long, grace: long, http2: false };
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        tokio::spawn(serve(listener, service, bounds, stop));
        for (url, expected) in [
            (format!("http://{address}/200"), Ok(())),
            (format!("http://localhost:{}/200", address.port()), Ok(())),
            (format!("http://{address}/503"), Err("503")),
            (format!("https://{address}/200"), Err("http://")),
            ("http://127.0.0.1:1/readyz".into(), Err("refused")),
        ] {
            let outcome = ask(&url.parse::<Uri>().unwrap()).await;
            match (expected, &outcome) {
                (Ok(()), Ok(())) => {}
                (Err(part), Err(error)) if error.contains(part) => {}
                _ => panic!("{url}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn the_probes_are_asked_first_and_every_address_means_loopback() {
        for (address, probes, asked) in [
            ("127.0.0.1:9901", None, "127.0.0.1:9901"),
            ("127.0.0.1:9901", Some("0.0.0.0:9902"), "127.0.0.1:9902"),
            ("[::]:9901", None, "[::1]:9901"),
            ("10.0.0.7:9901", None, "10.0.0.7:9901"),
        ] {
            let probes = probes.map(|probes: &str| probes.parse().unwrap());
            assert_eq!(probe_address(address.parse().unwrap(), probes), asked.parse().unwrap());
        }
    }
}
