//! Hostile input over HTTP/1.1: a table of what is sent, by clients and by upstreams, and what becomes of it.
//!
//! The cases stand in `tests/hostile.json`, which `tests/real/hostile.py` sends to other gateways as well. Each is
//! followed by a request for `/probe` on the same connection: whoever answers it has kept the connection.

use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use serde::Deserialize;

use crate::support::gateway::all_to;
use crate::support::{Answer, Gateway, Origin, Raw, Seen};

#[derive(Debug, Deserialize)]
struct Case {
    group: String,
    name: String,
    send: Bytes,
    /// What the upstream answers with, if not with an ordinary answer.
    upstream: Option<Bytes>,
    /// Nothing follows: the client says no more.
    #[serde(default)]
    stops: bool,
    /// Fields that must not reach the upstream, and those that must.
    #[serde(default)]
    absent: Vec<String>,
    #[serde(default)]
    present: Vec<String>,
    /// Values that fields must have at the upstream, and those that they must not.
    #[serde(default)]
    value: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    absent_value: std::collections::BTreeMap<String, String>,
    expect: Outcome,
}

/// What becomes of a case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Outcome {
    /// The statuses of the answers, before that to the probe.
    answers: Vec<u16>,
    /// The last answer's body broke off.
    #[serde(default)]
    broken: bool,
    /// The connection was closed.
    closed: bool,
    /// The targets that reached the upstream.
    forwarded: Vec<String>,
}

/// Bytes, one a character, some of them repeated.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Pieces(Vec<Piece>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Repeated(String, usize),
}

impl Bytes {
    fn bytes(&self) -> Vec<u8> {
        let latin1 =
            |text: &str| text.chars().map(|byte| u8::try_from(byte).expect("a byte")).collect::<Vec<u8>>();
        match self {
            Self::Text(text) => latin1(text),
            Self::Pieces(pieces) => pieces
                .iter()
                .flat_map(|piece| match piece {
                    Piece::Text(text) => latin1(text),
                    Piece::Repeated(text, count) => latin1(text).repeat(*count),
                })
                .collect(),
        }
    }
}

/// Everything that may take long is over soon.
const SHORT: &str = "
[listeners.public.timeouts]
head = '500ms'
body = '500ms'
idle = '2s'
[routes.all.timeouts]
request = '2s'
stream_idle = '500ms'
";

const PROBE: &str = "GET /probe HTTP/1.1\r\nhost: probe\r\n\r\n";

#[tokio::test]
async fn every_hostile_case_has_its_answer_and_nothing_in_doubt_is_forwarded() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../hostile.json")).expect("the cases");
    let cases: Vec<Arc<Case>> = cases.into_iter().map(Arc::new).collect();
    let outcomes: Vec<(Arc<Case>, Result<Outcome, String>)> = futures_util::stream::iter(cases)
        .map(|case| async move { (Arc::clone(&case), run(&case).await) })
        .buffered(8)
        .collect()
        .await;
    let mut wrong = Vec::new();
    for (case, outcome) in &outcomes {
        let (group, name) = (&case.group, &case.name);
        match outcome {
            Ok(outcome) => println!("{group}: {name} | {outcome}"),
            Err(what) => println!("{group}: {name} | {what}"),
        }
        if outcome.as_ref() != Ok(&case.expect) {
            wrong.push(format!("{group}: {name}: {outcome:?}, not {:?}", case.expect));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), outcomes.len(), wrong.join("\n"));
}

async fn run(case: &Case) -> Result<Outcome, String> {
    let upstream = case.upstream.as_ref().map(Bytes::bytes);
    let script = move |seen: &Seen| match &upstream {
        Some(bytes) if seen.target != "/probe" => Answer::raw(bytes.clone()),
        _ => Answer::status(200).header("x-target", &seen.target).data("ok"),
    };
    let origin = Origin::start(script).await;
    let gateway = Gateway::start(&[&all_to(origin.address), SHORT]).await;

    let mut bytes = case.send.bytes();
    if !case.stops {
        bytes.extend_from_slice(PROBE.as_bytes());
    }
    let mut raw = Raw::connect(gateway.address()).await;
    raw.try_send(bytes).await;
    let mut outcome = Outcome { answers: Vec::new(), broken: false, closed: true, forwarded: Vec::new() };
    while let Some(reply) = raw.try_reply().await {
        // the origin has closed after its own answer, perhaps just when the probe came
        let probed = case.upstream.is_some() && !outcome.answers.is_empty();
        if probed || reply.header("x-target") == Some("/probe") {
            outcome.closed = false;
            break;
        }
        outcome.answers.push(reply.status);
        outcome.broken = reply.broken;
    }
    let answers = outcome.answers.len() + usize::from(!outcome.closed);
    // everything that was answered is on record
    let log = gateway.log(answers).await;
    if let Some(panic) = log.iter().find(|line| line["reason"] == "panic") {
        return Err(format!("a panic: {panic}"));
    }
    let seen = origin.seen();
    // of a body that breaks, the beginning may have been on its way: never a whole request
    let whole = |seen: &&Seen| case.group != "chunks" || outcome.answers != [400] || seen.complete;
    let targets = seen.iter().filter(whole).map(|seen| seen.target.clone());
    outcome.forwarded = targets.filter(|target| target != "/probe").collect();
    let Some(first) = seen.first() else { return Ok(outcome) };
    for name in &case.absent {
        if first.headers.has(name) {
            return Err(format!("{name} reached the upstream"));
        }
    }
    for name in &case.present {
        if !first.headers.has(name) {
            return Err(format!("{name} did not reach the upstream"));
        }
    }
    for (name, value) in &case.value {
        if first.headers.all(name) != [value] {
            return Err(format!("{name} is {:?} at the upstream", first.headers.all(name)));
        }
    }
    for (name, value) in &case.absent_value {
        if first.headers.all(name).iter().any(|found| found == value) {
            return Err(format!("{name}: {value} reached the upstream"));
        }
    }
    Ok(outcome)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broken = if self.broken { ", broken off" } else { "" };
        let connection = if self.closed { "closed" } else { "kept" };
        let Self { answers, forwarded, .. } = self;
        write!(f, "{answers:?}{broken} | {connection} | {}", forwarded.join(" "))
    }
}
