//! The received traces: which one is whole and may be drawn, what is missing, and the balance at the end.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::span::{Kind, Span};
use crate::telemetry::context::TraceId;

/// What was asked and what was received.
#[derive(Debug, Default)]
pub(super) struct Traces {
    kept: HashMap<TraceId, Trace>,
    /// The kept ones, oldest first.
    order: VecDeque<TraceId>,
    /// Answered to the customer, but no span has come yet.
    awaited: HashSet<TraceId>,
    /// Requests that the customer gave up, so that nobody told it the trace.
    unnamed: u64,
    /// Traces that the customer knows of.
    matched: u64,
    summary: Summary,
}

/// The balance of a demo.
#[derive(Debug, Default, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// Requests the embedded customer sent.
    pub requests: u64,
    /// Traces received.
    pub traces: u64,
    /// Spans received, by service.
    pub spans: BTreeMap<Arc<str>, u64>,
    /// Exchanges that did not simply succeed, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Requests of the customer without a trace.
    pub missing_traces: u64,
    /// Spans that others name as parent, or that a called service owes, and that never came.
    pub missing_spans: u64,
}

#[derive(Debug)]
struct Trace {
    spans: Vec<Span>,
    last: Instant,
    drawn: bool,
}

impl Traces {
    /// Takes what an export brought.
    pub(super) fn receive(&mut self, spans: Vec<Span>, now: Instant) {
        for span in spans {
            let kept = &mut self.kept;
            let trace = kept.entry(span.trace_id).or_insert_with(|| {
                self.order.push_back(span.trace_id);
                self.summary.traces += 1;
                self.matched += u64::from(self.awaited.remove(&span.trace_id));
                Trace { spans: Vec::new(), last: now, drawn: false }
            });
            trace.last = now;
            // an export that was answered too late comes twice
            if trace.spans.len() < MAX_SPANS && trace.spans.iter().all(|other| other.id != span.id) {
                *self.summary.spans.entry(Arc::clone(&span.service)).or_default() += 1;
                trace.spans.push(span);
            }
        }
        while self.order.len() > MAX_TRACES {
            self.retire();
        }
    }

    /// The customer sent a request; the answer, if there was one, told this trace.
    pub(super) fn asked(&mut self, trace: Option<TraceId>) {
        self.summary.requests += 1;
        match trace {
            None => self.unnamed += 1,
            Some(trace) if self.kept.contains_key(&trace) => self.matched += 1,
            Some(trace) => {
                self.awaited.insert(trace);
            }
        }
    }

    /// The traces that may be drawn now, each once: whole and settled, or long without news.
    pub(super) fn settled(&mut self, now: Instant) -> Vec<&[Span]> {
        let settled = |trace: &Trace| {
            let quiet = now.saturating_duration_since(trace.last);
            quiet >= GIVE_UP || (quiet >= SETTLE && missing(&trace.spans) == 0)
        };
        self.take(settled)
    }

    /// The traces that have not been drawn yet: nothing more will come.
    pub(super) fn rest(&mut self) -> Vec<&[Span]> {
        self.take(|_| true)
    }

    /// The balance, once everything has come that will.
    pub(super) fn summary(mut self) -> Summary {
        while !self.order.is_empty() {
            self.retire();
        }
        let strangers = self.summary.traces - self.matched;
        self.summary.missing_traces = self.awaited.len() as u64 + self.unnamed.saturating_sub(strangers);
        self.summary
    }

    fn take(&mut self, ready: impl Fn(&Trace) -> bool) -> Vec<&[Span]> {
        let ready: HashSet<TraceId> =
            self.kept.iter().filter(|(_, trace)| !trace.drawn && ready(trace)).map(|(&id, _)| id).collect();
        for id in &ready {
            self.kept.get_mut(id).expect("taken from the map above").drawn = true;
        }
        self.order.iter().filter(|id| ready.contains(id)).map(|id| &*self.kept[id].spans).collect()
    }

    /// Forgets the oldest trace but for what it adds to the balance.
    fn retire(&mut self) {
        let oldest = self.order.pop_front().and_then(|id| self.kept.remove(&id));
        let Some(trace) = oldest else { return };
        self.summary.missing_spans += missing(&trace.spans);
        for span in trace.spans.iter().filter(|span| span.kind == Kind::Server) {
            if let Some(reason) = span.attribute("tracegate.reason") {
                *self.summary.reasons.entry(reason.to_owned()).or_default() += 1;
            }
        }
    }
}

/// How many spans of a trace are known to be and are not there: parents, and the callee's side of every call
/// that was answered.
fn missing(spans: &[Span]) -> u64 {
    let ids: HashSet<_> = spans.iter().map(|span| span.id.0).collect();
    let parents: HashSet<_> = spans.iter().filter_map(|span| span.parent).map(|parent| parent.0).collect();
    let orphaned = parents.difference(&ids).count();
    let answered =
        |span: &&Span| span.kind == Kind::Client && span.attributes.contains_key("http.response.status_code");
    let unserved = spans.iter().filter(answered).filter(|span| !parents.contains(&span.id.0)).count();
    (orphaned + unserved) as u64
}

impl Summary {
    /// Whether every request has its trace and no span is missing.
    pub fn complete(&self) -> bool {
        self.missing_traces == 0 && self.missing_spans == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |counts: &mut dyn Iterator<Item = (&str, u64)>| {
            counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let all: u64 = self.spans.values().sum();
        let spans = listed(&mut self.spans.iter().map(|(service, &count)| (&**service, count)));
        let reasons = listed(&mut self.reasons.iter().map(|(reason, &count)| (&**reason, count)));
        writeln!(f, "requests  {}", self.requests)?;
        writeln!(f, "traces    {}", self.traces)?;
        writeln!(f, "spans     {all} received over OTLP ({})", if all == 0 { "none" } else { &spans })?;
        writeln!(f, "failures  {}", if reasons.is_empty() { "none" } else { &reasons })?;
        if self.complete() {
            write!(f, "balance   every request has its trace, no span is missing")
        } else {
            let (traces, spans) = (self.missing_traces, self.missing_spans);
            write!(f, "balance   {traces} requests without a trace, {spans} spans missing")
        }
    }
}

/// A trace may be whole and a span still on its way (a service that was cut off): it is drawn after this time.
const SETTLE: Duration = Duration::from_millis(300);
/// An incomplete trace is drawn after this time without news.
const GIVE_UP: Duration = Duration::from_millis(2500);
/// Traces kept, so that late spans still count.
const MAX_TRACES: usize = 1000;
/// Spans kept of one trace.
const MAX_SPANS: usize = 500;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{GIVE_UP, MAX_TRACES, SETTLE, Traces};
    use crate::demo::span::{Kind, Span};
    use crate::telemetry::context::{SpanId, TraceId};

    fn trace(id: u16) -> TraceId {
        TraceId((u128::from(id) + 1).to_be_bytes())
    }

    fn span(trace_id: TraceId, id: u8, parent: u8, kind: Kind, attributes: &[(&str, &str)]) -> Span {
        Span {
            service: "api-gateway".into(),
            trace_id,
            id: SpanId([id; 8]),
            parent: (parent != 0).then_some(SpanId([parent; 8])),
            name: String::new(),
            kind,
            start: 0,
            end: 1,
            error: false,
            attributes: attributes.iter().map(|&(key, value)| (key.into(), value.into())).collect(),
        }
    }

    const ANSWERED: &[(&str, &str)] = &[("http.response.status_code", "200")];

    #[test]
    fn a_whole_trace_is_drawn_once_after_it_has_settled() {
        let (mut traces, now) = (Traces::default(), Instant::now());
        let id = trace(1);
        traces.receive(vec![span(id, 2, 1, Kind::Client, ANSWERED), span(id, 3, 2, Kind::Server, &[])], now);
        assert!(traces.settled(now + SETTLE).is_empty(), "its root is missing");
        traces.receive(vec![span(id, 1, 0, Kind::Server, &[])], now);
        assert!(traces.settled(now).is_empty(), "it has not settled");
        assert_eq!(traces.settled(now + SETTLE).len(), 1);
        assert!(traces.settled(now + GIVE_UP).is_empty(), "it has been drawn");
    }

    #[test]
    fn an_incomplete_trace_is_drawn_when_nothing_comes_any_more() {
        let (mut traces, now) = (Traces::default(), Instant::now());
        traces.receive(vec![span(trace(1), 2, 1, Kind::Client, &[])], now);
        traces.receive(
            vec![span(trace(2), 1, 0, Kind::Server, &[]), span(trace(2), 2, 1, Kind::Client, ANSWERED)],
            now,
        );
        assert!(traces.settled(now + GIVE_UP / 2).is_empty());
        assert_eq!(traces.settled(now + GIVE_UP).len(), 2);
    }

    #[test]
    fn the_balance_finds_what_is_missing() {
        let (id, other) = (trace(1), trace(2));
        let whole = || {
            vec![
                span(id, 1, 0, Kind::Server, &[("tracegate.reason", "client_gone")]),
                span(id, 2, 1, Kind::Client, ANSWERED),
                span(id, 3, 2, Kind::Server, &[]),
            ]
        };
        let without = |index: usize| {
            let mut spans = whole();
            spans.remove(index);
            spans
        };
        let twice = || [whole(), whole()].concat();
        for (what, asked, spans, missing_traces, missing_spans) in [
            ("all there", vec![Some(id)], whole(), 0, 0),
            ("sent twice", vec![Some(id)], twice(), 0, 0),
            ("given up by the customer", vec![None], whole(), 0, 0),
            ("no root", vec![Some(id)], without(0), 0, 1),
            ("no attempt", vec![Some(id)], without(1), 0, 1),
            ("no service", vec![Some(id)], without(2), 0, 1),
            ("nothing", vec![Some(id)], vec![], 1, 0),
            ("another's trace", vec![Some(other)], whole(), 1, 0),
            ("one of two", vec![Some(id), Some(other)], whole(), 1, 0),
            ("one of two given up", vec![None, None], whole(), 1, 0),
            ("a stranger's beside", vec![], whole(), 0, 0),
        ] {
            let told = |traces: &mut Traces| {
                for &trace in &asked {
                    traces.asked(trace);
                }
            };
            for asked_first in [true, false] {
                let mut traces = Traces::default();
                if asked_first {
                    told(&mut traces);
                }
                traces.receive(spans.clone(), Instant::now());
                if !asked_first {
                    told(&mut traces);
                }
                let summary = traces.summary();
                let found = (summary.missing_traces, summary.missing_spans);
                assert_eq!(found, (missing_traces, missing_spans), "{what}, asked first: {asked_first}");
                assert_eq!(summary.complete(), found == (0, 0), "{what}");
                assert_eq!(summary.requests, asked.len() as u64, "{what}");
            }
        }
    }

    #[test]
    fn the_summary_counts_spans_by_service_and_failures_by_reason() {
        let mut traces = Traces::default();
        traces.asked(Some(trace(1)));
        traces.receive(
            vec![span(trace(1), 1, 0, Kind::Server, &[("tracegate.reason", "no_route")])],
            Instant::now(),
        );
        let text = traces.summary().to_string();
        assert_eq!(
            text,
            "requests  1\ntraces    1\nspans     1 received over OTLP (api-gateway 1)\nfailures  no_route 1\n\
             balance   every request has its trace, no span is missing"
        );
    }

    #[test]
    fn old_traces_go_and_still_count() {
        let mut traces = Traces::default();
        let count = u16::try_from(MAX_TRACES).unwrap() + 10;
        for id in 0..count {
            traces.receive(vec![span(trace(id), 1, 0, Kind::Server, &[])], Instant::now());
            traces.asked(Some(trace(id)));
        }
        assert_eq!(traces.rest().len(), MAX_TRACES);
        let summary = traces.summary();
        assert_eq!(summary.traces, u64::from(count));
        assert!(summary.complete());
    }
}
