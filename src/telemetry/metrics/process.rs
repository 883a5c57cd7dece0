//! What the kernel says of this process: CPU, memory, files and threads; how many tasks its runtimes have, and
//! connections its workers.
//!
//! The names of the former are those of Prometheus' own client libraries.

use std::fs;

use rlimit::Resource;

use super::family::{self, Family};
use super::page::Page;
use crate::worker::Workers;

/// Reads and writes them. What cannot be read is left out: only Linux has a `/proc`.
pub(super) fn render(page: &mut Page, workers: Option<&Workers>) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (stat, status, system) = (read("/proc/self/stat"), read("/proc/self/status"), read("/proc/stat"));
    let open_files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count().to_string());
    let started = start_ticks(&stat).zip(number(&system, "btime")).map(|(ticks, boot)| ticks + boot * HERTZ);

    let mut add = |family: Family, value: Option<String>| {
        let Some(value) = value else { return };
        page.family(family.name, family.kind, family.help);
        page.sample("", "", value);
    };
    add(family::PROCESS_CPU, cpu_ticks(&stat).map(seconds));
    add(family::PROCESS_START, started.map(seconds));
    add(family::PROCESS_THREADS, number(&status, "Threads:").map(|count| count.to_string()));
    add(family::PROCESS_RESIDENT, number(&status, "VmRSS:").map(bytes));
    add(family::PROCESS_VIRTUAL, number(&status, "VmSize:").map(bytes));
    add(family::PROCESS_VIRTUAL_MAX, limit(Resource::AS));
    add(family::PROCESS_FILES, open_files);
    add(family::PROCESS_FILES_MAX, limit(Resource::NOFILE));
    add(family::RUNTIME_TASKS, workers.map(|workers| workers.alive_tasks().to_string()));

    let connections = family::WORKER_CONNECTIONS;
    page.family(connections.name, connections.kind, connections.help);
    for (worker, connections) in workers.into_iter().flat_map(Workers::connections).enumerate() {
        page.sample("", &format!("worker=\"{worker}\""), connections);
    }
}

/// In user and in kernel mode.
fn cpu_ticks(stat: &str) -> Option<u64> {
    Some(field(stat, 14)? + field(stat, 15)?)
}

/// From the start of the system to that of the process.
fn start_ticks(stat: &str) -> Option<u64> {
    field(stat, 22)
}

/// A field of `/proc/self/stat`, counted from 1 as in proc(5). The second is the program's name in brackets
/// and may hold anything.
fn field(stat: &str, position: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(position - 3)?.parse().ok()
}

/// The number after this word, at the beginning of a line.
fn number(text: &str, word: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `/proc` says kilobytes, means kibibytes.
fn bytes(kibibytes: u64) -> String {
    (kibibytes * 1024).to_string()
}

fn seconds(ticks: u64) -> String {
    format!("{}.{:02}", ticks / HERTZ, ticks % HERTZ)
}

/// The soft limit.
fn limit(resource: Resource) -> Option<String> {
    let soft = resource.get_soft().ok()?;
    Some(if soft == rlimit::INFINITY { 0 } else { soft }.to_string())
}

/// Ticks a second in everything that Linux tells programs (`USER_HZ`), on all that Rust's std is built for.
const HERTZ: u64 = 100;

#[cfg(test)]
mod tests {
    use super::{bytes, cpu_ticks, number, render, seconds, start_ticks};
    use crate::telemetry::metrics::page::{Format, Page};

    #[test]
    fn a_program_may_have_any_name() {
        for name in ["tracegate", "a b", "x) R 1 2 (", ""] {
            let stat = format!(
                "28903 ({name}) R 28897 28897 25031 0 -1 4194304 100 0 0 0 1234 66 0 0 20 0 5 0 1211991 31"
            );
            assert_eq!(cpu_ticks(&stat).map(seconds).as_deref(), Some("13.00"), "{name}");
            assert_eq!(start_ticks(&stat).map(seconds).as_deref(), Some("12119.91"), "{name}");
        }
    }

    #[test]
    fn what_is_missing_or_cut_off_is_not_made_up() {
        for stat in
            ["", "28903", "28903 (tracegate", "28903 (tracegate) R 1", "28903 (x) a b c d e f g h i j k l"]
        {
            assert_eq!((cpu_ticks(stat), start_ticks(stat)), (None, None), "{stat}");
        }
    }

    #[test]
    fn sizes_are_told_in_bytes() {
        let status = "Name:\ttracegate\nVmPeak:\t    9999 kB\nVmRSS:\t    2056 kB\nThreads:\t3\nVmData:\n";
        assert_eq!(number(status, "VmRSS:").map(bytes).as_deref(), Some("2105344"));
        assert_eq!(number(status, "Threads:"), Some(3));
        assert_eq!(number(status, "VmData:"), None);
        assert_eq!(number(status, "VmSize:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn every_family_is_on_the_page_of_a_running_process() {
        let mut page = Page::new(Format::Text);
        render(&mut page, None);
        let page = page.end();
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is missing:\n{page}")).parse::<f64>().unwrap()
        };
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_resident_memory_bytes") >= 65_536.0);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_start_time_seconds") > 1.7e9);
        for name in ["process_cpu_seconds_total", "process_max_fds", "process_virtual_memory_max_bytes"] {
            assert!(value(name) >= 0.0, "{name}");
        }
        let families = page.lines().filter(|line| line.starts_with("# TYPE process_")).count();
        assert_eq!(families, 8);
    }
}
