//! Where an exchange's time went: the gateway itself, or one of the steps of its attempts.

use std::time::Duration;

use serde::Serialize;

use crate::telemetry::operation::{AttemptRecord, ConnectionFacts, Record};

/// A step of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Phase {
    /// In no attempt: policies, pauses before retries, the way of the body to the client.
    Gateway,
    /// Waiting for a place in the pool.
    Queue,
    /// Finding the endpoint's address.
    Resolve,
    /// Establishing the connection; all that an attempt took that never came by one.
    Connect,
    /// The TLS handshake.
    Handshake,
    /// Sending the request, for as long as the client sends it.
    Send,
    /// Waiting for the answer's head: the upstream works.
    Wait,
    /// Receiving the answer's body, as fast as the client takes it.
    Receive,
}

impl Phase {
    /// Every phase, in the order in which they come.
    pub const ALL: [Self; 8] = [
        Self::Gateway,
        Self::Queue,
        Self::Resolve,
        Self::Connect,
        Self::Handshake,
        Self::Send,
        Self::Wait,
        Self::Receive,
    ];

    /// The word in answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Queue => "queue",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Send => "send",
            Self::Wait => "wait",
            Self::Receive => "receive",
        }
    }
}

/// A phase that took place.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Part {
    /// Which.
    pub phase: Phase,
    /// From the exchange's start, in milliseconds.
    pub start_ms: f64,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
}

/// How long each phase took, over one exchange or several.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Times([Duration; Phase::ALL.len()]);

impl Times {
    /// Those of an exchange whose attempts consist of these parts.
    pub(super) fn of<'a>(record: &Record, parts: impl Iterator<Item = &'a Part>) -> Self {
        let mut times = Self::default();
        for part in parts {
            times.0[part.phase as usize] += Duration::from_secs_f64(part.duration_ms.max(0.0) / 1e3);
        }
        let tried: Duration = record.attempts().map(AttemptRecord::duration).sum();
        times.0[Phase::Gateway as usize] = record.duration().saturating_sub(tried);
        times
    }

    /// The sum of both.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    /// The longest one and its share of all, from 0.0 to 1.0; nothing where nothing took time.
    pub fn dominant(&self) -> Option<(Phase, f64)> {
        let all = self.0.iter().sum::<Duration>().as_secs_f64();
        let (phase, longest) = Phase::ALL.into_iter().zip(self.0).max_by_key(|(_, time)| *time)?;
        (all > 0.0).then(|| (phase, longest.as_secs_f64() / all))
    }

    /// Each that took time.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, Duration)> {
        Phase::ALL.into_iter().zip(self.0).filter(|(_, time)| !time.is_zero())
    }
}

/// The phases of an attempt, one after the other.
pub(super) fn parts(attempt: &AttemptRecord) -> Vec<Part> {
    let mut parts = Parts { at: attempt.started, end: attempt.ended, found: Vec::with_capacity(6) };
    let ConnectionFacts { waited, resolve, connect, handshake, .. } = attempt.connection;
    let steps = [waited, resolve, connect, handshake];
    for (phase, took) in
        [Phase::Queue, Phase::Resolve, Phase::Connect, Phase::Handshake].into_iter().zip(steps)
    {
        if let Some(took) = took {
            parts.until(phase, parts.at + took);
        }
    }
    if !attempt.connected {
        // of the part that did not come to its end
        let part = if connect.is_some() { Phase::Handshake } else { Phase::Connect };
        parts.until(part, attempt.ended);
        return parts.found;
    }
    let sent = attempt.request_sent.or(attempt.first_byte).unwrap_or(attempt.ended);
    parts.until(Phase::Send, sent);
    if attempt.request_sent.is_some() {
        parts.until(Phase::Wait, attempt.first_byte.unwrap_or(attempt.ended));
    }
    if attempt.first_byte.is_some() {
        parts.until(Phase::Receive, attempt.ended);
    }
    parts.found
}

struct Parts {
    at: Duration,
    end: Duration,
    found: Vec<Part>,
}

impl Parts {
    fn until(&mut self, phase: Phase, end: Duration) {
        let end = end.min(self.end);
        if let Some(took) = end.checked_sub(self.at).filter(|took| !took.is_zero()) {
            self.found.push(Part { phase, start_ms: milliseconds(self.at), duration_ms: milliseconds(took) });
            self.at = end;
        }
    }
}

/// To the microsecond.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
