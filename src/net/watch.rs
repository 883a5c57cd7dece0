//! Files that are watched: whether one has become another one, or has other contents, and is done changing.
//!
//! They are looked at now and then. That notices every way in which files change: written in place in one step or
//! in several, replaced by a rename, swapped behind a symbolic link as Kubernetes does; on every file system, mounted
//! ones too, where the kernel's notifications are silent. A look costs a few microseconds a file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Files and how they were when last looked at.
#[derive(Debug)]
pub struct Watch {
    files: BTreeMap<PathBuf, Stamp>,
    /// Since when something goes on changing.
    unsettled: Option<Instant>,
    max_wait: Duration,
}

/// What tells a file from another one by its name, and its contents from others, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    Absent,
    Present { device: u64, inode: u64, size: u64, modified: (i64, i64), changed: (i64, i64) },
}

impl Watch {
    /// Watches nothing yet. What goes on changing for longer than this is told nevertheless.
    pub fn new(max_wait: Duration) -> Self {
        Self { files: BTreeMap::new(), unsettled: None, max_wait }
    }

    /// What goes on changing for longer than this is told nevertheless.
    pub fn wait_at_most(&mut self, max_wait: Duration) {
        self.max_wait = max_wait;
    }

    /// Watches these files from now on, and no others. Those that it watches already are compared with how they
    /// were; new ones are taken as they are, which `is_as_read` may deny: then they count as changed.
    pub fn follow<'a>(
        &mut self,
        files: impl IntoIterator<Item = &'a Path>,
        is_as_read: impl Fn(&Path) -> bool,
    ) {
        let known = std::mem::take(&mut self.files);
        for path in files {
            let stamp = known.get(path).copied().unwrap_or_else(|| {
                let stamp = Stamp::of(path);
                // after the stamp was taken: what is written later shows at the next look
                if !is_as_read(path) {
                    self.unsettled.get_or_insert_with(Instant::now);
                }
                stamp
            });
            self.files.insert(path.to_owned(), stamp);
        }
    }

    /// Looks at every file. True once after a change, as soon as nothing has changed any more between two looks: an
    /// editor that writes in two steps, or several files that are replaced one after the other, are one change. True
    /// as well when something has gone on changing for the longest wait.
    pub fn look(&mut self) -> bool {
        let mut changed = false;
        for (path, known) in &mut self.files {
            let now = Stamp::of(path);
            changed |= now != *known;
            *known = now;
        }
        if !changed {
            return self.unsettled.take().is_some();
        }
        let since = *self.unsettled.get_or_insert_with(Instant::now);
        let over = since.elapsed() >= self.max_wait;
        if over {
            self.unsettled = Some(Instant::now());
        }
        over
    }
}

impl Stamp {
    fn of(path: &Path) -> Self {
        // of what a symbolic link leads to
        fs::metadata(path).map_or(Self::Absent, |file| Self::Present {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn watching(path: &Path) -> Watch {
        let mut watch = Watch::new(Duration::from_hours(1));
        watch.follow([path], |_| true);
        watch
    }

    #[test]
    fn every_way_of_changing_a_file_is_noticed_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name: &str| directory.path().join(name);
        let file = place("routes.toml");
        fs::write(&file, "a").expect("written");
        let mut watch = watching(&file);
        assert!(!watch.look() && !watch.look(), "nothing has changed");
        let ways: [(&str, &dyn Fn()); 4] = [
            ("written in place", &|| fs::write(&file, "bb").expect("written")),
            ("replaced by a rename", &|| {
                fs::write(place("new"), "cc").expect("written");
                fs::rename(place("new"), &file).expect("renamed");
            }),
            ("removed", &|| fs::remove_file(&file).expect("removed")),
            ("back again", &|| fs::write(&file, "cc").expect("written")),
        ];
        for (way, change) in ways {
            change();
            assert!(!watch.look(), "{way}: it may go on changing");
            assert!(watch.look(), "{way}");
            assert!(!watch.look(), "{way}: told once");
        }
    }

    #[test]
    fn a_swap_behind_symbolic_links_is_noticed() {
        // as Kubernetes mounts a ConfigMap: routes.toml → ..data/routes.toml, ..data → ..1
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name: &str| directory.path().join(name);
        for (name, text) in [("..1", "a"), ("..2", "b")] {
            fs::create_dir(place(name)).expect("a directory");
            fs::write(place(name).join("routes.toml"), text).expect("written");
        }
        symlink("..1", place("..data")).expect("a link");
        symlink("..data/routes.toml", place("routes.toml")).expect("a link");
        let mut watch = watching(&place("routes.toml"));
        assert!(!watch.look());
        symlink("..2", place("..data_tmp")).expect("a link");
        fs::rename(place("..data_tmp"), place("..data")).expect("renamed");
        assert!(!watch.look());
        assert!(watch.look());
    }

    #[test]
    fn as_long_as_files_change_nothing_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("routes.toml");
        let mut watch = watching(&file);
        for text in ["a", "ab", "abc"] {
            fs::write(&file, text).expect("written");
            assert!(!watch.look(), "{text}");
        }
        assert!(watch.look());
    }

    #[test]
    fn what_never_stops_changing_is_told_after_the_longest_wait() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("routes.toml");
        fs::write(&file, "a").expect("written");
        let mut watch = Watch::new(Duration::ZERO);
        watch.follow([&*file], |_| true);
        assert!(!watch.look());
        for text in ["ab", "abc"] {
            fs::write(&file, text).expect("written");
            assert!(watch.look(), "{text}");
        }
        assert!(watch.look(), "the last change is told when it has settled, too");
        assert!(!watch.look());
    }

    #[test]
    fn what_changed_between_its_reading_and_its_watching_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        let mut watch = watching(&one);
        watch.follow([&*one, &*other], |_| false);
        assert!(watch.look(), "the new one is not as it was read");
        watch.follow([&*one, &*other], |_| false);
        assert!(!watch.look(), "both have been followed before");
        watch.follow([&*other], |_| true);
        fs::write(&one, "a").expect("written");
        assert!(!watch.look() && !watch.look(), "no longer followed");
    }
}
