//! Which file imports which, read from the sources: `use` declarations, paths, and paths inside macros.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemMod, ItemUse, UseTree, Visibility};

/// The path of a module that has a file of its own, `http::route`; the crate's root is empty.
pub type Word = String;

/// Sources by module path.
pub struct Sources {
    texts: BTreeMap<Word, String>,
}

impl Sources {
    /// These files, without those that only tests are built from.
    pub fn new(mut texts: BTreeMap<Word, String>) -> Self {
        let test_only: Vec<Word> = texts.iter().flat_map(|(module, text)| test_only(module, text)).collect();
        texts.retain(|module, _| !test_only.contains(module));
        Self { texts }
    }

    /// These texts, under a root that declares nothing.
    pub fn planted(files: Vec<(&str, &str)>) -> Self {
        let files = files.into_iter().chain([("", "")]);
        Self::new(files.map(|(module, text)| (module.to_owned(), text.to_owned())).collect())
    }

    /// The texts.
    pub fn texts(&self) -> &BTreeMap<Word, String> {
        &self.texts
    }

    /// Every module but the root.
    pub fn modules(&self) -> impl Iterator<Item = &Word> {
        self.texts.keys().filter(|module| !module.is_empty())
    }

    /// For every file the files it imports from. What a parent takes from its own child only to show it to
    /// others is composing, and no import.
    pub fn imports(&self) -> BTreeMap<Word, BTreeSet<Word>> {
        let of = |(module, text): (&Word, &String)| {
            (module.clone(), self.imports_of(module, &parse(module, text)))
        };
        self.texts.iter().map(of).collect()
    }

    fn imports_of(&self, module: &str, file: &File) -> BTreeSet<Word> {
        let mut walk = Walk {
            sources: self,
            file: segments(module),
            place: segments(module),
            names: vec![BTreeMap::new()],
            found: BTreeSet::new(),
        };
        walk.visit_file(file);
        let mut found = walk.found;
        found.remove(module);
        found.remove("");
        found
    }

    /// The deepest module with a file of its own on this path.
    fn file_of(&self, path: &[String]) -> Option<Word> {
        (1..=path.len())
            .rev()
            .map(|length| path[..length].join("::"))
            .find(|word| self.texts.contains_key(word))
    }
}

/// The words in backticks of a file's own documentation.
pub fn documented_words(text: &str) -> BTreeSet<Word> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("//!"));
    let text = lines.collect::<Vec<_>>().join("\n");
    text.split('`').skip(1).step_by(2).map(|word| word.trim_start_matches("crate::").to_owned()).collect()
}

/// One walk through one file.
struct Walk<'a> {
    sources: &'a Sources,
    /// The module of this file.
    file: Vec<String>,
    /// The module the walk is in: the file's own or one inside it.
    place: Vec<String>,
    /// Names that stand for modules, innermost last.
    names: Vec<BTreeMap<String, Vec<String>>>,
    found: BTreeSet<Word>,
}

impl Walk<'_> {
    /// The path from the crate's root, if it stays within the crate.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let mut base = match path.first()?.as_str() {
            "crate" | "tracegate" => Vec::new(),
            "self" | "super" => self.place.clone(),
            name => {
                let mut known = self.names.last()?.get(name)?.clone();
                known.extend_from_slice(&path[1..]);
                return Some(known);
            }
        };
        let mut rest = path;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "super" => drop(base.pop()),
                "crate" | "tracegate" | "self" => {}
                _ => break,
            }
            rest = after;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    fn import(&mut self, path: &[String]) {
        if let Some(file) = self.resolve(path).and_then(|path| self.sources.file_of(&path)) {
            self.found.insert(file);
        }
    }

    /// Enters the names of this module's children and imports, so that paths through them are understood.
    fn learn(&mut self, items: &[Item]) {
        let mut names = BTreeMap::new();
        for item in items {
            if let Item::Mod(child) = item {
                let name = child.ident.to_string();
                let path = self.place.iter().cloned().chain([name.clone()]).collect();
                names.insert(name, path);
            }
        }
        self.names.push(names);
        for item in items {
            if let Item::Use(item) = item {
                for (path, name) in leaves(&item.tree) {
                    if let Some(path) = self.resolve(&path) {
                        self.names.last_mut().expect("just pushed").entry(name).or_insert(path);
                    }
                }
            }
        }
    }

    fn composes(&self, item: &ItemUse, path: &[String]) -> bool {
        let shown = !matches!(item.vis, Visibility::Inherited);
        let child = |path: Vec<String>| path.len() > self.file.len() && path.starts_with(&self.file);
        shown && self.resolve(path).is_some_and(child)
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_file(&mut self, file: &'ast File) {
        self.learn(&file.items);
        visit::visit_file(self, file);
    }

    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !attributes.iter().any(is_test_only) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let Some((_, items)) = &item.content else { return };
        self.place.push(item.ident.to_string());
        self.learn(items);
        visit::visit_item_mod(self, item);
        self.names.pop();
        self.place.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for (path, _) in leaves(&item.tree) {
            if !self.composes(item, &path) {
                self.import(&path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if words.len() > 1 {
            self.import(&words);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        for path in paths_in(&item.tokens.to_string()) {
            self.import(&path);
        }
        visit::visit_macro(self, item);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// Every path of a `use` tree, with the name it gets.
fn leaves(tree: &UseTree) -> Vec<(Vec<String>, String)> {
    match tree {
        UseTree::Path(path) => {
            let first = path.ident.to_string();
            let within = |(mut path, name): (Vec<String>, String)| {
                let name = if path == ["self"] && name == "self" { first.clone() } else { name };
                path.retain(|word| word != "self");
                path.insert(0, first.clone());
                (path, name)
            };
            leaves(&path.tree).into_iter().map(within).collect()
        }
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
        UseTree::Name(name) => vec![(vec![name.ident.to_string()], name.ident.to_string())],
        UseTree::Rename(name) => vec![(vec![name.ident.to_string()], name.rename.to_string())],
        UseTree::Glob(_) => vec![(Vec::new(), "*".to_owned())],
    }
}

/// The paths of more than one segment in the text of a token stream.
fn paths_in(tokens: &str) -> Vec<Vec<String>> {
    let mut paths: Vec<Vec<String>> = Vec::new();
    let mut joined = false;
    for token in tokens.replace("::", " :: ").split_whitespace() {
        match token.trim_matches(|sign: char| !(sign.is_alphanumeric() || sign == '_' || sign == ':')) {
            "::" => joined = true,
            word => {
                match paths.last_mut() {
                    Some(path) if joined => path.push(word.to_owned()),
                    _ => paths.push(vec![word.to_owned()]),
                }
                joined = false;
            }
        }
    }
    paths.retain(|path| path.len() > 1);
    paths
}

/// The modules that this file declares for tests alone.
fn test_only(module: &str, text: &str) -> Vec<Word> {
    let file = parse(module, text);
    let declared = file.items.iter().filter_map(|item| match item {
        Item::Mod(item) if item.content.is_none() && item.attrs.iter().any(is_test_only) => Some(&item.ident),
        _ => None,
    });
    let path = |name: &syn::Ident| segments(module).into_iter().chain([name.to_string()]).collect::<Vec<_>>();
    declared.map(|name| path(name).join("::")).collect()
}

fn parse(module: &str, text: &str) -> File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("src of {module}: {error}"))
}

fn is_test_only(attribute: &Attribute) -> bool {
    let text = |list: &syn::MetaList| list.path.is_ident("cfg") && list.tokens.to_string() == "test";
    attribute.path().is_ident("test") || attribute.meta.require_list().is_ok_and(text)
}

fn segments(module: &str) -> Vec<String> {
    module.split("::").filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
