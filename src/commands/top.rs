//! `tracegate top`: the live page for people with a terminal and no browser.
//!
//! News of the gateway (`stream`, `client`) and keys change the `model`; `draw` shows it.

mod client;
mod data;
mod draw;
mod events;
mod model;
mod paint;
mod plain;
mod route;
mod routes;
mod stream;
mod telemetry;
#[cfg(test)]
mod tests;
mod trace;
mod traces;
mod upstreams;
mod words;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use crossterm::event::{Event as Input, EventStream, KeyEventKind};
use futures_util::StreamExt;
use http::Uri;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use self::client::{Client, Refusal};
use self::data::Traces;
use self::model::{Answer, Ask, MOST_TRACES, Model, News, Then};
use self::paint::Theme;
use super::signals::{Signal, Signals};

/// What `tracegate top` may be told.
#[derive(Debug, Args)]
pub struct Options {
    #[arg(long, value_name = "URL", conflicts_with = "config", help = ADMIN_HELP)]
    admin: Option<Uri>,
    /// A configuration file that names the admin address; may be repeated. Without: `routes.toml`, if there is one
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    #[arg(long, value_name = "FILE", help = TOKEN_HELP)]
    token_file: Option<PathBuf>,
    /// The authority that signed the admin address's certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print everything once, as text, and end; so it is where standard output is no terminal
    #[arg(long)]
    once: bool,
}

/// Shows a gateway until somebody has seen enough.
pub fn top(options: &Options) -> ExitCode {
    match outcome(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn outcome(options: &Options) -> Result<(), String> {
    let base = match &options.admin {
        Some(url) => url.clone(),
        None => client::configured(&options.config)?,
    };
    let token = client::token(options.token_file.as_deref())?;
    let client = Client::new(base, options.ca.as_deref(), token.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let once = options.once || !io::stdout().is_terminal();
    let outcome = runtime.block_on(async { if once { snapshot(&client).await } else { live(client).await } });
    // a key that is still being waited for is nobody's
    runtime.shutdown_background();
    outcome
}

/// Everything once, as text, on standard output.
async fn snapshot(client: &Client) -> Result<(), String> {
    let mut model = Model::default();
    let told = |refusal: Refusal| refusal.sentence().to_owned();
    model.data.routes = Some(client.get("/api/routes").await.map_err(told)?);
    model.data.upstreams = Some(client.get("/api/upstreams").await.map_err(told)?);
    let Traces { traces } = client.get("/api/traces?failed=true&limit=20").await.map_err(told)?;
    model.data.telemetry = permitted(client, "/api/telemetry").await?;
    model.data.reloads = permitted(client, "/api/reloads").await?;
    model.data.certificates = permitted(client, "/api/certificates").await?;
    let mut output = io::stdout().lock();
    let written = output.write_all(plain::text(&model, &traces).as_bytes()).and_then(|()| output.flush());
    match written {
        // whoever reads has read enough
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| format!("standard output: {error}")),
    }
}

/// What not every role may see.
async fn permitted<T: DeserializeOwned>(client: &Client, path: &str) -> Result<Option<T>, String> {
    match client.get(path).await {
        Ok(value) => Ok(Some(value)),
        Err(Refusal::Forbidden(_)) => Ok(None),
        Err(refusal) => Err(refusal.sentence().to_owned()),
    }
}

/// The terminal, as it is while it is ours. However this ends, a panic included, it is given back as it was.
struct Screen(ratatui::DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        // also has panics restore the terminal before they are told
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn live(client: Client) -> Result<(), String> {
    let failed = |error: io::Error| format!("the terminal: {error}");
    let mut signals = Signals::new().map_err(|error| format!("cannot take signals: {error}"))?;
    let mut screen = Screen::open().map_err(failed)?;
    let mut inputs = EventStream::new();
    let (sender, mut news) = mpsc::channel(WAITING);
    let _stream = AbortOnDropHandle::new(tokio::spawn(stream::follow(client.clone(), sender.clone())));
    let theme = Theme { colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
    let address = client.address();
    let mut asked = Asked { client, sender, running: HashMap::new() };
    let mut model = Model::default();
    let mut drawn = Instant::now();
    let (mut changed, mut at_once) = (true, true);
    loop {
        if changed && (at_once || drawn.elapsed() >= BETWEEN) {
            let mut most = 0;
            screen.0.draw(|frame| most = draw::draw(frame, &model, &address, theme)).map_err(failed)?;
            model.bound_scroll(most);
            (drawn, changed, at_once) = (Instant::now(), false, false);
        }
        let then = tokio::select! {
            biased;
            signal = signals.next() => match signal {
                // a hang-up means that the terminal is gone
                Signal::Stop | Signal::Reload => Then::End(None),
                Signal::Reopen => continue,
            },
            input = inputs.next() => {
                (changed, at_once) = (true, true);
                match input {
                    Some(Ok(Input::Key(key))) if key.kind != KeyEventKind::Release => model.press(key),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Err(failed(error)),
                    None => Then::End(None),
                }
            }
            Some(told) = news.recv() => {
                changed = true;
                model.learn(told)
            }
            () = sleep_until(drawn + BETWEEN), if changed => continue,
        };
        match then {
            Then::Ask(asks) => asks.into_iter().for_each(|ask| asked.ask(ask)),
            Then::End(None) => return Ok(()),
            Then::End(Some(why)) => return Err(why),
        }
    }
}

/// What is being asked for: one of each kind at a time, the newest.
struct Asked {
    client: Client,
    sender: mpsc::Sender<News>,
    running: HashMap<Discriminant<Ask>, AbortOnDropHandle<()>>,
}

impl Asked {
    fn ask(&mut self, ask: Ask) {
        let (client, sender, kind) = (self.client.clone(), self.sender.clone(), discriminant(&ask));
        let task = tokio::spawn(async move {
            let answer = match answer(&client, &ask).await {
                Ok(answer) => answer,
                Err(refusal) => Answer::Nothing { what: ask, why: refusal.sentence().to_owned() },
            };
            // nobody may want it any more
            let _ = sender.send(News::Answer(answer)).await;
        });
        self.running.insert(kind, AbortOnDropHandle::new(task));
    }
}

async fn answer(client: &Client, ask: &Ask) -> Result<Answer, Refusal> {
    Ok(match ask {
        Ask::Charts(route) => {
            let charts = client.get(&format!("/api/routes/{}", named(route))).await?;
            Answer::Charts { route: route.clone(), charts }
        }
        Ask::Failed(route) => {
            let traces =
                client.get(&format!("/api/traces?failed=true&limit=50&route={}", named(route))).await?;
            Answer::Failed { route: route.clone(), traces }
        }
        Ask::Trace(trace_id) => {
            let trace = client.get(&format!("/api/traces/{trace_id}")).await?;
            Answer::Trace { trace_id: trace_id.clone(), trace }
        }
        Ask::Past => Answer::Past(client.get(&format!("/api/traces?limit={MOST_TRACES}")).await?),
        Ask::Certificates => Answer::Certificates(client.get("/api/certificates").await?),
    })
}

/// What a route is called in paths and queries, where its name stands as it is; `-` is what found no route.
fn named(route: &str) -> &str {
    if route.is_empty() { "-" } else { route }
}

const ADMIN_HELP: &str = "The admin address, such as http://127.0.0.1:9901; else that of the configuration";
const TOKEN_HELP: &str = "A file whose first line is the token; without, the variable TRACEGATE_TOKEN counts";
/// News that wait for the terminal; whoever sends more waits, and in the end misses some and is told.
const WAITING: usize = 256;
/// The terminal is drawn no more often than this, but for keys.
const BETWEEN: Duration = Duration::from_millis(100);
