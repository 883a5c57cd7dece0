//! The reference in the docs is what the code says; `TRACEGATE_WRITE_REFERENCE=1` writes it anew.

use std::path::Path;

use tracegate::commands::reference::{Page, page};

#[test]
fn the_reference_in_the_docs_is_made_of_the_code() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/reference");
    for (name, kind) in [
        ("keys.md", Page::Keys),
        ("metrics.md", Page::Metrics),
        ("attributes.md", Page::Attributes),
        ("reasons.md", Page::Reasons),
    ] {
        let (file, text) = (directory.join(name), page(kind));
        if std::env::var_os("TRACEGATE_WRITE_REFERENCE").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            written == text,
            "{name} is not what the code says: run this test with TRACEGATE_WRITE_REFERENCE=1"
        );
    }
}
