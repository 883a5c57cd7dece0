//! What the book and the files to deploy say is true as far as a test can tell: configurations load, links lead
//! somewhere, every page is in the table of contents.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};
use tracegate::gateway::file::{Sources, load};

/// A block of a page: its line, what stands behind the fence, its text.
type Block = (usize, String, String);

#[test]
fn every_complete_configuration_in_the_book_is_accepted() {
    let mut seen = 0;
    for page in pages() {
        for (line, info, text) in blocks(&read(&page)) {
            if info.split(',').any(|word| word == "check") {
                assert!(info.starts_with("toml"), "{}:{line}: {info}", page.display());
                let name = format!("{}:{line}", page.display());
                let environment = vec![("SECRET".to_owned(), "made up for this test".to_owned())];
                let sources =
                    Sources { files: vec![(name.clone(), text)], environment, directory: project() };
                load(&sources).unwrap_or_else(|problems| panic!("{name}\n{problems}"));
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "only {seen} blocks are marked toml,check");
}

#[test]
fn a_block_that_looks_complete_is_marked_to_be_checked() {
    for page in pages() {
        for (line, info, text) in blocks(&read(&page)) {
            let complete = text.contains("[listeners.") && text.contains("[routes.");
            let marked = info.split(',').any(|word| word == "check");
            assert!(marked || !complete || !info.starts_with("toml"), "{}:{line}", page.display());
        }
    }
}

#[test]
fn the_routes_of_the_stage_of_containers_are_accepted() {
    let (directory, text) = (tempfile::tempdir().unwrap(), read(&project().join("deploy/routes.toml")));
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["gateway".to_owned()]).unwrap().self_signed(&key).unwrap();
    for (name, pem) in [
        ("gateway.pem", certificate.pem()),
        ("ca.pem", certificate.pem()),
        ("gateway-key.pem", key.serialize_pem()),
    ] {
        fs::write(directory.path().join(name), pem).unwrap();
    }
    let inside = format!("\"{}/", directory.path().display());
    let text = text.replace("\"/secrets/", &inside).replace("\"/audit/", &inside);
    accepted("deploy/routes.toml", &[text, tokens()]);
}

#[test]
fn the_routes_for_kubernetes_are_accepted() {
    let manifest = read(&project().join("deploy/kubernetes/tracegate.yaml"));
    let certificate = project().join("certs/gateway.pem");
    let routes = scalar(&manifest, "routes.toml: |")
        .replace("/tls/tls.crt", certificate.to_str().unwrap())
        .replace("/tls/tls.key", project().join("certs/gateway-key.pem").to_str().unwrap());
    accepted("deploy/kubernetes", &[routes, scalar(&manifest, "tokens.toml: |")]);
}

#[test]
fn every_link_of_the_book_leads_to_a_page_and_its_heading() {
    let source = project().join("docs/src");
    for page in pages() {
        for target in links(&read(&page)) {
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let there = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let generated = GENERATED.iter().any(|page| there.ends_with(page));
            if file.contains("://") || generated {
                continue;
            }
            let link = format!("{}: {target}", page.display());
            let there = there.canonicalize().unwrap_or_else(|error| panic!("{link}: {error}"));
            // what lies outside is not in the book that mdbook makes
            assert!(!page.starts_with(&source) || there.starts_with(&source), "{link} leads out of the book");
            let found = heading.is_empty() || headings(&read(&there)).any(|known| known == heading);
            assert!(found, "{link}: there is no such heading");
        }
    }
}

#[test]
fn every_page_of_the_book_stands_once_in_its_contents() {
    let source = project().join("docs/src");
    let contents = read(&source.join("SUMMARY.md"));
    let listed = links(&contents);
    let unique: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), unique.len(), "a page is listed twice");
    for page in pages().iter().filter_map(|page| page.strip_prefix(&source).ok()) {
        let page = page.to_str().unwrap();
        assert!(page == "SUMMARY.md" || unique.contains(page), "{page} is not in SUMMARY.md");
    }
}

/// A marked block that is wrong is found: the test above can fail.
#[test]
fn blocks_and_links_are_found_where_they_are() {
    let page = "a [b](c.md#d) `[x](y)`\n```toml,check\n[a]\n```\n[e](f.md)\n```sh\n[g](h)\n```\n";
    assert_eq!(
        blocks(page),
        [(2, "toml,check".to_owned(), "[a]\n".to_owned()), (6, "sh".to_owned(), "[g](h)\n".to_owned())]
    );
    assert_eq!(links(page), ["c.md#d", "f.md"]);
}

fn accepted(name: &str, texts: &[String]) {
    let files = texts.iter().map(|text| (name.to_owned(), text.clone())).collect();
    let sources = Sources { files, environment: Vec::new(), directory: project() };
    load(&sources).unwrap_or_else(|problems| panic!("{name}\n{problems}"));
}

/// What `deploy/make-secrets.sh` makes of one token.
fn tokens() -> String {
    format!("[admin.tokens.prometheus]\nrole = \"metrics\"\nsha256 = \"{}\"\n", "0".repeat(64))
}

/// The block scalar behind this key of a YAML file, without its indentation.
fn scalar(yaml: &str, key: &str) -> String {
    let behind = &yaml[yaml.find(key).unwrap() + key.len() + 1..];
    let inside = behind.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    inside.map(|line| line.get(4..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in page.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(info) => {
                open = true;
                found.push((index + 1, info.to_owned(), String::new()));
            }
            None if open => {
                let (.., text) = found.last_mut().unwrap();
                *text += line;
                text.push('\n');
            }
            None => {}
        }
    }
    found
}

/// The targets of links, but for those in code.
fn links(page: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let plain: String = line.split('`').step_by(2).collect();
            let targets = plain.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            found.extend(targets.map(str::to_owned));
        }
    }
    found
}

/// What links call the headings of a page.
fn headings(page: &str) -> impl Iterator<Item = String> {
    let titles =
        page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    titles.map(|title| {
        let kept = title.to_lowercase().replace(' ', "-");
        kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
    })
}

/// The pages of the book, and what stands beside it.
fn pages() -> Vec<PathBuf> {
    let mut pages =
        vec![project().join("README.md"), project().join("CHANGELOG.md"), project().join("SECURITY.md")];
    let mut directories = vec![project().join("docs/src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "md") {
                pages.push(entry);
            }
        }
    }
    pages.sort();
    pages
}

fn project() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Pages that are made from the code; a test of their own holds them.
const GENERATED: [&str; 4] =
    ["reference/keys.md", "reference/metrics.md", "reference/attributes.md", "reference/reasons.md"];
