//! Files that lines are appended to: none is glued to one that somebody before could not finish.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Opens a file to append to, or makes it. `true`: it ends within a line, because there was no room for the rest of it,
/// or whoever wrote it was killed.
pub fn open(path: &Path) -> io::Result<(File, bool)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    // who may only write to it is not told
    let cut = file.metadata().is_ok_and(|found| found.is_file()) && is_cut(path).unwrap_or(false);
    Ok((file, cut))
}

fn is_cut(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Writes as much as there is room for, and tells how much that was.
pub fn put(out: &mut dyn Write, text: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < text.len() {
        match out.write(&text[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, out.flush())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::open;

    #[test]
    fn a_file_that_ends_within_a_line_says_so() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text, expected) in [
            ("new", None, false),
            ("empty", Some(""), false),
            ("whole", Some("a\n"), false),
            ("cut", Some("a\nb"), true),
        ] {
            let path = directory.path().join(name);
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            assert_eq!(open(&path).unwrap().1, expected, "{name}");
        }
        assert!(!open(std::path::Path::new("/dev/null")).unwrap().1);
    }
}
