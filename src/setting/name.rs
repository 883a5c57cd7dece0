//! The names of listeners, upstreams and routes.

use super::check::Check;
use crate::problem::{Key, Problem};

/// Notes a problem unless the name of this table is `[a-z][a-z0-9_]*` without `__`, which stands for a dot in
/// the environment.
pub fn check(table: &Key, check: &Check<'_>) {
    let Some(name) = table.segments().next_back() else { return };
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let rest = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    let problem = if !(first && rest) {
        Problem::unknown_key(table, format!("\"{name}\" is not a name"))
    } else if name.contains("__") {
        Problem::unknown_key(table, format!("\"{name}\" has two underscores in a row"))
    } else {
        return;
    };
    check.note(problem.help("write lower-case letters, digits and single underscores, a letter first"));
}

/// What a name looks like; that there are no two underscores in a row is not in it.
pub const PATTERN: &str = "^[a-z][a-z0-9_]*$";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_name_can_be_written_in_the_environment() {
        for (name, good) in [
            ("shop", true),
            ("shop_2", true),
            ("", false),
            ("Shop", false),
            ("2shop", false),
            ("_shop", false),
            ("shop__eu", false),
            ("shop-eu", false),
        ] {
            let checked = Check::new(Path::new(""), &[]);
            check(&Key::root().child("upstreams").child(name), &checked);
            assert_eq!(checked.into_problems().is_empty(), good, "{name}");
        }
    }
}
