//! Who has read and changed what, refused attempts too: a ring in memory for the page, and a file that is kept.
//!
//! Scrapes are aggregated: one record a token and result for an hour of them. The file is turned over when it is
//! full, and so many old ones are kept: that is how long the audit goes back.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::role::Right;
use crate::net::lines;

/// Where the audit is kept: what `[admin.audit]` means once it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The file; `None` keeps the last records in memory alone.
    pub file: Option<PathBuf>,
    /// A file that has this many bytes is turned over.
    pub max_bytes: u64,
    /// How many that have been turned over are kept.
    pub keep: usize,
}

/// One thing that somebody did or tried.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// When; the first time, where there were several.
    pub time: String,
    /// By the name of their token or certificate, or the value of their claim; `-` without one.
    #[serde(serialize_with = "text")]
    pub who: Arc<str>,
    /// By which way they came in, if they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<&'static str>,
    /// From which address.
    pub from: IpAddr,
    /// The method and the page, without the query.
    pub what: String,
    /// What was changed: the route, the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The status of the answer.
    pub status: u16,
    /// How often, in the hour from `time` on.
    pub times: u64,
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// The scrapes of the hour, by who and result, and since when.
type Scrapes = BTreeMap<(Arc<str>, Option<&'static str>, u16), (SystemTime, Entry)>;

/// The audit of one gateway.
#[derive(Debug)]
pub(super) struct Audit {
    ring: Mutex<VecDeque<Entry>>,
    scrapes: Mutex<Scrapes>,
    file: Option<SyncSender<Entry>>,
}

impl Audit {
    /// Opens the file, if there is one. Fails where it cannot be opened: an audit that is not written is none.
    pub(super) fn open(settings: &Settings) -> io::Result<Arc<Self>> {
        let file = match &settings.file {
            None => None,
            Some(path) => {
                let kept = Kept::open(path, settings)
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
                let (sender, receiver) = sync_channel(WAITING);
                thread::Builder::new().name("audit".to_owned()).spawn(move || kept.write(&receiver))?;
                Some(sender)
            }
        };
        Ok(Arc::new(Self { ring: Mutex::default(), scrapes: Mutex::default(), file }))
    }

    /// Puts on record what somebody asked for, and how it was answered.
    pub(super) fn record(&self, right: Right, entry: Entry) {
        if right == Right::Scrape {
            self.count(entry, SystemTime::now());
        } else {
            self.keep(entry);
        }
    }

    /// The last records, the newest first; scrapes of the current hour before them.
    pub(super) fn last(&self) -> Vec<Entry> {
        let scrapes = self.scrapes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last: Vec<Entry> = scrapes.values().map(|(_, entry)| entry.clone()).collect();
        drop(scrapes);
        last.extend(self.ring.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned());
        last
    }

    fn count(&self, entry: Entry, now: SystemTime) {
        let key = (Arc::clone(&entry.who), entry.way, entry.status);
        let mut scrapes = self.scrapes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, known)) = scrapes.get_mut(&key)
            && now.duration_since(*since).is_ok_and(|age| age < HOUR)
        {
            known.times += 1;
            return;
        }
        let over = scrapes.insert(key, (now, entry));
        drop(scrapes);
        if let Some((_, over)) = over {
            self.keep(over);
        }
    }

    fn keep(&self, entry: Entry) {
        if let Some(file) = &self.file
            && file.try_send(entry.clone()).is_err()
        {
            tracing::error!(who = %entry.who, what = entry.what, "an audit record could not be written");
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == IN_MEMORY {
            ring.pop_front();
        }
        ring.push_back(entry);
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let scrapes = std::mem::take(&mut *self.scrapes.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, entry) in scrapes.into_values() {
            self.keep(entry);
        }
    }
}

/// The file, turned over when it is full.
struct Kept {
    path: PathBuf,
    file: File,
    length: u64,
    /// The last record in it is not whole.
    cut: bool,
    max_bytes: u64,
    keep: usize,
}

impl Kept {
    fn open(path: &Path, settings: &Settings) -> io::Result<Self> {
        let (file, cut) = lines::open(path)?;
        let length = file.metadata()?.len();
        let Settings { max_bytes, keep, .. } = *settings;
        Ok(Self { path: path.to_owned(), file, length, cut, max_bytes, keep })
    }

    /// Until the audit is gone.
    fn write(mut self, entries: &Receiver<Entry>) {
        while let Ok(entry) = entries.recv() {
            if let Err(error) = self.line(&entry) {
                tracing::error!(path = %self.path.display(), %error, who = %entry.who, "an audit record could not be written");
            }
        }
    }

    fn line(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if self.length > 0 && self.length + line.len() as u64 > self.max_bytes {
            self.turn_over()?;
        }
        if self.cut {
            // what comes next is not to be read as the rest of it
            line.insert(0, b'\n');
        }
        let (written, outcome) = lines::put(&mut self.file, &line);
        self.cut = line[..written].last().map_or(self.cut, |last| *last != b'\n');
        self.length += written as u64;
        outcome
    }

    /// `audit.jsonl` becomes `audit.jsonl.1`, that `.2`, and the last one goes.
    fn turn_over(&mut self) -> io::Result<()> {
        let old = |number: usize| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.keep).rev() {
            let _ = fs::rename(old(number), old(number + 1));
        }
        if self.keep > 0 {
            fs::rename(&self.path, old(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        (self.file, self.cut) = lines::open(&self.path)?;
        self.length = 0;
        Ok(())
    }
}

/// Records that are kept in memory.
const IN_MEMORY: usize = 1000;
/// Records that wait to be written.
const WAITING: usize = 1024;
/// For which scrapes of one token are one record.
const HOUR: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, SystemTime};

    use super::{Audit, Entry, Kept, Right, Settings};

    fn entry(what: &str) -> Entry {
        Entry {
            time: "2026-11-25T00:00:00Z".to_owned(),
            who: "ops".into(),
            way: Some("token"),
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            what: what.to_owned(),
            target: None,
            status: 200,
            times: 1,
        }
    }

    #[test]
    fn scrapes_of_an_hour_are_one_record_and_everything_else_is_one_each() {
        let settings = Settings { file: None, max_bytes: 1, keep: 0 };
        let audit = Audit::open(&settings).unwrap();
        let now = SystemTime::now();
        for minute in [0, 1, 59, 61] {
            audit.count(entry("GET /metrics"), now + Duration::from_mins(minute));
        }
        audit.record(Right::Look, entry("GET /status"));
        audit.record(Right::Look, entry("GET /status"));
        let times: Vec<_> = audit.last().iter().map(|entry| (entry.what.clone(), entry.times)).collect();
        let expected = [("GET /metrics", 1), ("GET /status", 1), ("GET /status", 1), ("GET /metrics", 3)];
        assert_eq!(times, expected.map(|(what, times)| (what.to_owned(), times)));
    }

    #[test]
    fn a_record_is_not_glued_to_what_somebody_who_was_killed_has_begun() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        std::fs::write(&path, "{\"time\":\"2026-11-2").unwrap();
        let settings = Settings { file: Some(path.clone()), max_bytes: 1 << 20, keep: 2 };
        let mut kept = Kept::open(&path, &settings).unwrap();
        kept.line(&entry("a")).unwrap();
        kept.line(&entry("b")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let whole = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        assert_eq!((text.lines().count(), whole.count()), (3, 2), "{text}");
        assert_eq!(kept.length, text.len() as u64);
    }

    #[test]
    fn a_full_file_is_turned_over_and_so_many_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let length = serde_json::to_vec(&entry("a")).unwrap().len() as u64 + 1;
        let settings = Settings { file: Some(path.clone()), max_bytes: 2 * length, keep: 2 };
        let mut kept = Kept::open(&path, &settings).unwrap();
        for what in ["a", "b", "c", "d", "e", "f", "g"] {
            kept.line(&entry(what)).unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]);
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(read("audit.jsonl").contains("\"g\""), "{}", read("audit.jsonl"));
        assert!(read("audit.jsonl.2").contains("\"c\"") && read("audit.jsonl.2").contains("\"d\""));
    }
}
