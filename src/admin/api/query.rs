//! Queries of `/api/traces`: which recent exchanges are wanted. What is not understood is refused, with what to write.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::failure::{Blame, Reason};
use crate::telemetry::recent::entry::Kept;
use crate::telemetry::recent::filter::{Filter, Status};

/// What a query asks for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) filter: Filter,
    /// The most that are wanted.
    pub(super) most: usize,
}

/// Reads a query.
pub(super) fn read(query: &str) -> Result<Asked, String> {
    let mut asked = Asked { filter: Filter::default(), most: USUAL };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value);
        if value.is_empty() {
            // a form's field that was left empty
            continue;
        }
        read_one(key, &value, &mut asked)?;
    }
    Ok(asked)
}

fn read_one(key: &str, value: &str, asked: &mut Asked) -> Result<(), String> {
    let filter = &mut asked.filter;
    match key {
        "route" => filter.route = Some(if value == "-" { String::new() } else { value.to_owned() }),
        "status" => filter.status = Some(status(value).ok_or("write status=502, status=5xx or status=none")?),
        "reason" => {
            let known = Reason::ALL.iter().find(|reason| reason.word() == value);
            filter.reason = Some(*known.ok_or("write reason=upstream_timeout, or another reason")?);
        }
        "blame" => {
            let all = [Blame::Client, Blame::Gateway, Blame::Upstream];
            let known = all.into_iter().find(|blame| blame.word() == value);
            filter.blame = Some(known.ok_or("write blame=client, blame=gateway or blame=upstream")?);
        }
        "kept" => {
            let known = Kept::ALL.into_iter().find(|kept| kept.word() == value);
            filter.kept = Some(known.ok_or("write kept=error, kept=refused, kept=slow or kept=sample")?);
        }
        "failed" => filter.failed = value == "true",
        "min_ms" => filter.min = Some(milliseconds(value).ok_or("write min_ms=250")?),
        "max_ms" => filter.max = Some(milliseconds(value).ok_or("write max_ms=250")?),
        "trace_id" => filter.trace_id = Some(trace_id(value).ok_or("write 4 to 32 hexadecimal digits")?),
        "attribute" => {
            let (name, wanted) = value.split_once(':').ok_or("write attribute=order.id:4711")?;
            filter.attribute = Some((name.to_owned(), wanted.to_owned()));
        }
        "find" => filter.find = Some(trace_id(value).unwrap_or_else(|| value.trim().to_owned())),
        "before" => filter.before = Some(value.parse().map_err(|_| "write before=NUMBER")?),
        "limit" => {
            let most = value.parse().ok().filter(|most| (1..=MOST).contains(most));
            asked.most = most.ok_or("write limit=1 to limit=500")?;
        }
        _ => {
            return Err(
                "known are find, trace_id, attribute, route, status, reason, blame, kept, failed, min_ms, \
                        max_ms, before, limit"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

fn status(value: &str) -> Option<Status> {
    match value {
        "none" => Some(Status::None),
        value if value.ends_with("xx") => {
            value.strip_suffix("xx")?.parse().ok().filter(|class| (1..=5).contains(class)).map(Status::Class)
        }
        value => value.parse().ok().filter(|status| (100..=999).contains(status)).map(Status::Exactly),
    }
}

fn milliseconds(value: &str) -> Option<Duration> {
    let number: f64 = value.parse().ok()?;
    Duration::try_from_secs_f64(number / 1e3).ok()
}

/// A trace's id or how it begins, perhaps within a whole `traceparent`, in lower case.
fn trace_id(value: &str) -> Option<String> {
    let value = value.trim().to_ascii_lowercase();
    let id = match value.split('-').collect::<Vec<_>>()[..] {
        [_, id, _, _] => id.to_owned(),
        _ => value,
    };
    let digits = id.bytes().all(|digit| digit.is_ascii_hexdigit());
    ((4..=32).contains(&id.len()) && digits).then_some(id)
}

fn decoded(value: &str) -> Cow<'_, str> {
    let value = value.replace('+', " ");
    percent_decode_str(&value).decode_utf8_lossy().into_owned().into()
}

/// Exchanges of one answer, unless others are asked for.
const USUAL: usize = 100;
const MOST: usize = 500;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Status, read};
    use crate::failure::Reason;

    #[test]
    fn a_query_is_read_or_refused_with_what_to_write() {
        let asked =
            read("route=order_read&status=5xx&reason=upstream_reset&min_ms=1.5&limit=3&find=").unwrap();
        assert_eq!((asked.filter.route.as_deref(), asked.most), (Some("order_read"), 3));
        assert_eq!(asked.filter.status, Some(Status::Class(5)));
        assert_eq!(asked.filter.reason, Some(Reason::UpstreamReset));
        assert_eq!(asked.filter.min, Some(Duration::from_micros(1500)));
        assert!(!asked.filter.finds());
        let parent = "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let asked = read(&format!("find={parent}&attribute=order.id%3A47+11")).unwrap();
        assert_eq!(asked.filter.find.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(asked.filter.attribute, Some(("order.id".to_owned(), "47 11".to_owned())));
        for wrong in [
            "status=9xx",
            "status=x",
            "reason=bad",
            "limit=0",
            "limit=501",
            "min_ms=-1",
            "trace_id=xyz",
            "a=1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
