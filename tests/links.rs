//! Proves that the links of the markdown files lead to files, folders and headings that exist, and that the tests that
//! CONTRIBUTING.md names do. Reads the checkout only: links to other hosts are not fetched.

use pulldown_cmark::{BrokenLink, CowStr, Event, LinkType, Options, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

/// Folders that hold no files of this repository.
const SKIPPED: [&str; 3] = ["target", "node_modules", "__pycache__"];

#[test]
fn links_of_markdown_files_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = BTreeMap::new();
    read_files(root, root, &[".md"], &mut |path, text| drop(pages.insert(path, Page::read(&text))));
    assert!(pages.contains_key("README.md"), "the markdown files were not found");
    let dead = dead_links(&pages, |path| root.join(path).exists());
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
}

#[test]
fn the_tests_that_contributing_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    for folder in ["src", "tests", "bindings"] {
        read_files(root, &root.join(folder), &[".rs", ".c", ".py", ".go"], &mut |_, text| sources.push_str(&text));
    }
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let codes = Parser::new(&text).filter_map(|event| match event {
        Event::Code(code) => code.rsplit("::").next().map(str::to_owned),
        _ => None,
    });
    // No other names in there have so many words.
    let tests: Vec<String> = codes.filter(|code| code.starts_with("Test") || code.matches('_').count() > 2).collect();
    assert!(tests.len() > 10, "only {tests:?}");
    let missing: Vec<&String> = tests.iter().filter(|test| !sources.contains(test.as_str())).collect();
    assert!(missing.is_empty(), "CONTRIBUTING.md names tests that do not exist: {missing:?}");
}

/// One line per dead link: file, line, link, reason. Paths are relative to the root of the repository.
fn dead_links(pages: &BTreeMap<String, Page>, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut dead = Vec::new();
    for (path, page) in pages {
        for link in &page.links {
            if let Err(reason) = follow(path, link, pages, &exists) {
                dead.push(format!("{path}:{}: {}: {reason}", link.line, link.target));
            }
        }
    }
    dead
}

fn follow(
    from: &str,
    link: &Link,
    pages: &BTreeMap<String, Page>,
    exists: impl Fn(&str) -> bool,
) -> Result<(), &'static str> {
    if !link.defined {
        return Err("this reference has no definition");
    }
    if link.target.contains("://") {
        return Ok(());
    }
    let (path, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
    let path = match path {
        "" => from.to_owned(),
        path => resolve(from, path).ok_or("leaves the repository")?,
    };
    if !exists(&path) {
        return Err("there is no such file");
    }
    if !anchor.is_empty() && !pages.get(&path).is_some_and(|page| page.anchors.contains(anchor)) {
        return Err("there is no such heading");
    }
    Ok(())
}

/// The target of a link as a path from the root. `None` if it lies outside.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.starts_with('/') {
        true => Vec::new(),
        false => from.split('/').collect(),
    };
    parts.pop(); // The name of the file that has the link.
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

struct Link {
    line: usize,
    target: String,
    /// False for `[text][name]` without a line `[name]: target`.
    defined: bool,
}

#[derive(Default)]
struct Page {
    anchors: HashSet<String>,
    links: Vec<Link>,
}

impl Page {
    fn read(text: &str) -> Self {
        let line = |at: usize| text[..at].matches('\n').count() + 1;
        let mut undefined = Vec::new();
        let note = |link: BrokenLink| -> Option<(CowStr, CowStr)> {
            // `[text]` alone is text; only `[text][name]` must be a link.
            if text[link.span.clone()].contains("][") {
                undefined.push(Link {
                    line: line(link.span.start),
                    target: link.reference.to_string(),
                    defined: false,
                });
            }
            None
        };
        let (mut page, mut heading, mut seen) = (Self::default(), None, HashMap::new());
        // Tables and footnotes as on the hosting platform: a link may stand in either.
        let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES;
        let events = Parser::new_with_broken_link_callback(text, options, Some(note)).into_offset_iter();
        for (event, span) in events {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    let count = seen.entry(anchor.clone()).and_modify(|count| *count += 1).or_insert(0);
                    page.anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::Start(Tag::Link { link_type: LinkType::Email, .. }) => {}
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Link { line: line(span.start), target: dest_url.into_string(), defined: true });
                }
                _ => {}
            }
        }
        page.links.extend(undefined);
        page
    }
}

/// The anchor of a heading, as the hosting platform makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Calls `found` with the path, from the root, and the text of every file below a folder whose name ends so.
fn read_files(root: &Path, folder: &Path, endings: &[&str], found: &mut impl FnMut(String, String)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            let hidden = name.starts_with('.') && name != ".github";
            if !hidden && !SKIPPED.contains(&&*name) {
                read_files(root, &path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            let relative = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            found(relative, fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn a_planted_dead_link_is_named_by_file_line_and_reason() {
    /// `text` is docs/page.md, beside docs/other.md and src/lib.rs.
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let other = "# One, *two* & `three_four`\n## Twice\n## Twice\n";
        let pages = [("docs/page.md", text), ("docs/other.md", other)];
        let pages = pages.map(|(path, text)| (path.to_owned(), Page::read(text))).into();
        let files = ["docs", "docs/page.md", "docs/other.md", "src/lib.rs"];
        let dead = dead_links(&pages, |path| files.contains(&path));
        assert_eq!(dead, expected, "{text}");
    }
    check("[a](other.md) [b](../src/lib.rs) [c](/docs) ![d](./page.md) [e](../docs/)", &[]);
    check("# Here\n[a](#here) [b](other.md#one-two--three_four) [c](other.md#twice-1)", &[]);
    check("[a](https://example.org/x#y) <https://example.org> <mail@example.org>", &[]);
    check("`[a](gone.md)` and\n```\n[b](gone.md)\n```\n[ ] [text] a[0]", &[]);
    check("[a][b] [c][] [d]\n\n[b]: other.md\n[c]: page.md\n[d]: other.md", &[]);

    check("\n\n[a](gone.md)", &["docs/page.md:3: gone.md: there is no such file"]);
    check("| a |\n|-|\n| [b](gone.md) |", &["docs/page.md:3: gone.md: there is no such file"]);
    check("[a][b]\n\n[b]: gone.md", &["docs/page.md:1: gone.md: there is no such file"]);
    check("[a](../../x.md)", &["docs/page.md:1: ../../x.md: leaves the repository"]);
    check("[a](#there)", &["docs/page.md:1: #there: there is no such heading"]);
    check("[a](other.md#twice-2)", &["docs/page.md:1: other.md#twice-2: there is no such heading"]);
    check("[a](../src/lib.rs#L1)", &["docs/page.md:1: ../src/lib.rs#L1: there is no such heading"]);
    check("[a][b]", &["docs/page.md:1: b: this reference has no definition"]);
}
