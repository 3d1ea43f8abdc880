//! Tidiness is a test: the shape of the house, held by a machine.
//!
//! A new crate edge, a clock read in the wrong place, a file no module names, a promise whose test is gone:
//! each fails here, so that it is a visible decision and not a drift. The rules are told in
//! `docs/architecture.md`.

// The lints know only functions marked #[test]; the helpers here are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates may use which. The table in docs/architecture.md says the same in words.
const EDGES: &[(&str, &[&str])] = &[
    ("repo", &[]),
    ("api", &[]),
    ("apiserver", &[]),
    ("source", &["repo"]),
    ("app", &["repo", "apiserver"]),
    ("rpc", &[]),
    ("operator", &["repo", "app", "api", "apiserver"]),
    ("cli", &["repo", "apiserver", "source", "app", "rpc", "operator"]),
    ("sim", &[]),
];

/// Crates that only tests use another crate through (dev-dependencies).
const DEV_EDGES: &[(&str, &[&str])] = &[("api", &["rpc"]), ("sim", &["repo", "apiserver", "source", "app"])];

/// The files that may read the wall clock or throw dice.
const CLOCK_AND_DICE: &[&str] = &["crates/repo/src/env.rs"];

/// What reading the wall clock or throwing dice looks like.
const CLOCK_AND_DICE_CALLS: &[&str] = &[
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "Utc::now",
    "Local::now",
    "SystemRandom",
    "rand::fill",
    "rand::random",
    "thread_rng",
    "getrandom(",
    "Uuid::new_v4",
];

/// What only the command line may do: read argv and environment, print, exit.
const FACE_CALLS: &[&str] =
    &["std::env::", "env::var(", "env::args(", "process::exit(", "println!(", "eprintln!("];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files_below(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "node_modules" {
                found.extend(files_below(&path, ending));
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn crates() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The names under `[section]` of a manifest.
fn section(manifest: &str, section: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == format!("[{section}]");
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            names.insert(name.trim_matches('"').to_owned());
        }
    }
    names
}

/// The code of a file without its unit tests and without comments.
fn production(text: &str) -> String {
    let tests = "\n#[cfg(test)]\nmod ";
    // A test module that is a file of its own is one line, and production code follows it.
    let begin = text
        .match_indices(tests)
        .map(|(at, _)| at)
        .find(|at| text[at + tests.len()..].lines().next().is_some_and(|line| line.ends_with('{')));
    let code = &text[..begin.unwrap_or(text.len())];
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether the file is a module that exists in tests only.
fn is_test_module(path: &Path) -> bool {
    let (Some(folder), Some(stem)) = (path.parent(), path.file_stem().and_then(|stem| stem.to_str())) else {
        return false;
    };
    [folder.join("mod.rs"), folder.join("lib.rs"), folder.with_extension("rs")]
        .iter()
        .filter(|parent| parent.exists())
        .any(|parent| read(parent).contains(&format!("\n#[cfg(test)]\nmod {stem};")))
}

#[test]
fn crates_use_only_the_crates_they_may() {
    let ours: BTreeSet<String> = crates().into_iter().collect();
    let listed: BTreeSet<String> = EDGES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(ours, listed, "every crate has its line in EDGES and in docs/architecture.md");
    let edges: BTreeMap<_, _> = EDGES.iter().copied().collect();
    let dev_edges: BTreeMap<_, _> = DEV_EDGES.iter().copied().collect();
    for name in &ours {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        for used in section(&manifest, "dependencies").intersection(&ours) {
            assert!(
                edges[name.as_str()].contains(&used.as_str()),
                "crate {name} may not use crate {used}; if it must, say so in docs/architecture.md and in EDGES"
            );
        }
        let mut dev: BTreeSet<&str> = edges[name.as_str()].iter().copied().collect();
        dev.extend(dev_edges.get(name.as_str()).copied().unwrap_or_default());
        for used in section(&manifest, "dev-dependencies").intersection(&ours) {
            assert!(dev.contains(used.as_str()), "the tests of crate {name} may not use crate {used}");
        }
    }
}

#[test]
fn the_wall_clock_and_the_dice_are_read_in_one_file() {
    for path in files_below(&root().join("crates"), ".rs") {
        let name = relative(&path);
        if name.contains("/tests/") || name.contains("/examples/") || CLOCK_AND_DICE.contains(&name.as_str())
        {
            continue;
        }
        let code = production(&read(&path));
        for call in CLOCK_AND_DICE_CALLS {
            assert!(
                !code.contains(call),
                "{name} calls {call}: take time and chance from repo::env::Env or as an argument, so that a test can own them"
            );
        }
    }
}

/// Keys, salts and the names of leases are no secret, and not even different, if their dice repeat.
#[test]
fn dice_that_repeat_are_for_tests() {
    // Where they are made; and what feeds the fuzzer, whose keys lock nothing.
    let may = ["crates/repo/src/env.rs", "crates/repo/src/decoders.rs"];
    for path in files_below(&root().join("crates"), ".rs") {
        let name = relative(&path);
        if !name.contains("/src/") || is_test_module(&path) || may.contains(&name.as_str()) {
            continue;
        }
        // A test module may have modules of its own.
        let above = path.ancestors().skip(1).map(|folder| folder.with_extension("rs"));
        if above.filter(|file| file.is_file()).any(|file| is_test_module(&file)) {
            continue;
        }
        let code = production(&read(&path));
        for call in ["Env::fixed(", "Env::jumping("] {
            assert!(
                !code.contains(call),
                "{name} calls {call}: two processes would throw the same dice; use Env::real"
            );
        }
    }
}

#[test]
fn libraries_do_not_print_exit_or_read_the_environment() {
    for path in files_below(&root().join("crates"), ".rs") {
        let name = relative(&path);
        if name.starts_with("crates/cli/") || !name.contains("/src/") || is_test_module(&path) {
            continue;
        }
        let code = production(&read(&path));
        for call in FACE_CALLS {
            assert!(!code.contains(call), "{name} calls {call}: only the command line has a face");
        }
    }
}

#[test]
fn no_file_is_dead() {
    for name in crates() {
        let src = root().join("crates").join(&name).join("src");
        let mut alive = BTreeSet::new();
        for top in ["lib.rs", "main.rs"] {
            let top = src.join(top);
            if top.exists() {
                alive.insert(top.clone());
                follow_modules(&top, &src, &mut alive);
            }
        }
        for file in files_below(&src, ".rs") {
            assert!(
                alive.contains(&file),
                "{}: no module names this file; delete it or add it",
                relative(&file)
            );
        }
    }
}

/// Marks every file that `file` declares as a module, and theirs. `dir` is where its children live.
fn follow_modules(file: &Path, dir: &Path, alive: &mut BTreeSet<PathBuf>) {
    let mut elsewhere = None;
    for line in read(file).lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            elsewhere = Some(dir.join(path));
            continue;
        }
        let line = line
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ")
            .trim_start_matches("pub ");
        let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) else { continue };
        if let Some(child) = elsewhere.take() {
            if alive.insert(child.clone()) {
                // What such a file names lies beside it.
                follow_modules(&child, child.parent().unwrap(), alive);
            }
            continue;
        }
        for (child, below) in [
            (dir.join(format!("{name}.rs")), dir.join(name)),
            (dir.join(name).join("mod.rs"), dir.join(name)),
        ] {
            if child.exists() && alive.insert(child.clone()) {
                follow_modules(&child, &below, alive);
            }
        }
    }
}

#[test]
fn no_test_file_is_forgotten() {
    for name in crates() {
        let crate_dir = root().join("crates").join(&name);
        let manifest = read(&crate_dir.join("Cargo.toml"));
        assert!(!manifest.contains("autotests = false"), "{name}: cargo must find the tests by itself");
        let tests = crate_dir.join("tests");
        let mut alive = BTreeSet::new();
        for top in fs::read_dir(&tests).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            // cargo builds `tests/x.rs` and `tests/x/main.rs`.
            let (top, dir) = match top.join("main.rs") {
                main if main.exists() => (main, top),
                _ => (top, tests.clone()),
            };
            if top.extension().is_some_and(|ending| ending == "rs") {
                let mut parts = BTreeSet::from([top.clone()]);
                follow_modules(&top, &dir, &mut parts);
                let is_test = |part: &PathBuf| {
                    ["#[test]", "#[tokio::test", "proptest!"].iter().any(|mark| read(part).contains(mark))
                };
                assert!(parts.iter().any(is_test), "{}: a test file without a test", relative(&top));
                alive.extend(parts);
            }
        }
        for file in files_below(&tests, ".rs") {
            assert!(alive.contains(&file), "{}: no test includes this file", relative(&file));
        }
    }
}

/// Tests that are never run, how many in which file: those that wrote the golden repositories show how they came about,
/// and a golden repository is never written again (R7).
const IGNORED: &[(&str, usize)] = &[
    // They wrote the golden repositories, and refuse to while those are there: to run them is to break a promise (R7).
    ("crates/repo/tests/golden.rs", 3),
    // Each is started by the test beside it, in a process whose memory is measured, and fails without that.
    ("crates/repo/src/immutable/tests.rs", 1),
    ("crates/repo/src/summaries.rs", 1),
    ("crates/app/tests/memory.rs", 1),
    ("crates/repo/tests/memory.rs", 1),
    ("crates/source/tests/memory.rs", 1),
    // Manifests that others publish are not ours to keep here, and cannot be had everywhere; `tests/published.md` says what was tried.
    ("crates/app/tests/published.rs", 1),
];

#[test]
fn no_test_is_ignored_and_nothing_is_left_to_do() {
    for path in files_below(&root().join("crates"), ".rs") {
        let name = relative(&path);
        if name == "crates/sim/tests/tidy.rs" {
            continue;
        }
        let text = read(&path);
        let ignored = IGNORED.iter().find(|(file, _)| *file == name).map_or(0, |(_, count)| *count);
        assert_eq!(
            text.matches("#[ignore").count(),
            ignored,
            "{name}: an ignored test needs its reason in IGNORED"
        );
        for mark in ["todo!(", "unimplemented!(", "TODO", "FIXME", "XXX"] {
            assert!(
                !text.contains(mark),
                "{name} contains {mark}: finish it, or write down the limit in docs/"
            );
        }
    }
}

/// The names of all functions, tests among them.
fn functions() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for path in files_below(&root().join("crates"), ".rs") {
        for line in read(&path).lines() {
            let Some(at) = line.find("fn ") else { continue };
            let name: String =
                line[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            tests.insert(name);
        }
    }
    tests
}

/// Each of the repository's promises has tests that bear its number, and the page names some of them.
#[test]
fn every_promise_of_the_repository_has_numbered_tests() {
    let tests = functions();
    let page = read(&root().join("docs/promises.md"));
    for number in 1..=8 {
        let row = page.lines().find(|line| line.starts_with(&format!("| R{number} |")));
        let row = row.unwrap_or_else(|| panic!("docs/promises.md has no row for R{number}"));
        let named: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        for test in &named {
            assert!(
                tests.contains(*test),
                "docs/promises.md: R{number} is shown by {test}, which is no test"
            );
        }
        let numbered = named.iter().any(|test| test.starts_with(&format!("r{number}_")));
        assert!(numbered, "docs/promises.md: R{number} is shown by no test that bears its number");
    }
}

/// `docs/promises.md` counts from 1 to 115 and names only tests that exist.
#[test]
fn every_promise_is_listed_and_its_tests_exist() {
    let tests = functions();
    let page = read(&root().join("docs/promises.md"));
    let mut expected = 1;
    for line in page.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit()) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 3, "docs/promises.md: | # | promise | shown by |: {line}");
        assert_eq!(cells[0], expected.to_string(), "docs/promises.md counts on: {line}");
        expected += 1;
        let named: Vec<&str> = cells[2].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || cells[2] == "–", "docs/promises.md: tests in backticks, or –: {line}");
        for test in named {
            assert!(
                tests.contains(test),
                "docs/promises.md: promise {} is shown by {test}, which is no test",
                cells[0]
            );
        }
    }
    assert_eq!(expected, 116, "docs/promises.md lists the promises 1 to 115");
}

/// Links between pages lead somewhere, and no page of docs/ is an orphan.
#[test]
fn every_page_is_linked_and_every_link_leads_somewhere() {
    let mut pages = files_below(&root().join("docs"), ".md");
    let documents: BTreeSet<PathBuf> = pages.iter().cloned().collect();
    for top in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        pages.push(root().join(top));
    }
    let mut linked = BTreeSet::new();
    for page in &pages {
        for target in read(page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = page.parent().unwrap().join(target);
            let path = path
                .canonicalize()
                .unwrap_or_else(|_| panic!("{} links to {target}, which is not there", relative(page)));
            if &path != page {
                linked.insert(path);
            }
        }
    }
    for page in documents {
        assert!(linked.contains(&page.canonicalize().unwrap()), "{}: no page links here", relative(&page));
    }
}

/// Licences that may enter (docs/decisions/0001-dependencies.md).
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unicode-3.0",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "BlueOak-1.0.0",
];

fn cargo(args: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What is linked into the product: permissive licences only, and one provider of TLS and cryptography.
#[test]
fn dependencies_are_permissive_and_bring_one_crypto_provider() {
    let tree = cargo(&[
        "tree",
        "--locked",
        "--workspace",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "-f",
        "{p}|{l}",
    ]);
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (package, licence) = line.split_once('|').unwrap();
        let licence = licence.trim_end_matches(" (*)").trim();
        let name = package.split(' ').next().unwrap_or_default();
        for banned in ["ring", "openssl", "openssl-sys", "native-tls", "serde_yml"] {
            assert_ne!(
                name, banned,
                "{banned} must not enter the graph (docs/decisions/0001-dependencies.md)"
            );
        }
        let alternatives = licence.replace('/', " OR ");
        // `A AND (B OR C)`: every part of the conjunction needs one alternative that is allowed.
        let permitted = alternatives.split(" AND ").all(|part| {
            part.trim_matches(['(', ')', ' '])
                .split(" OR ")
                .any(|one| LICENCES.contains(&one.trim_matches(['(', ')', ' '])))
        });
        assert!(
            permitted,
            "{package} is under {licence}, which may not enter (docs/decisions/0001-dependencies.md)"
        );
    }
}

/// Dependencies that no line of code names, each with its reason.
const UNNAMED: &[(&str, &str)] = &[];

/// A dependency that nothing uses costs everybody who builds.
#[test]
fn no_dependency_is_unused() {
    for name in crates() {
        let crate_dir = root().join("crates").join(&name);
        let manifest = read(&crate_dir.join("Cargo.toml"));
        let code = |folders: &[&str]| -> String {
            folders
                .iter()
                .flat_map(|folder| files_below(&crate_dir.join(folder), ".rs"))
                .map(|path| read(&path))
                .collect()
        };
        let (source, all) = (code(&["src"]), code(&["src", "tests", "examples"]));
        for (section_name, code) in [("dependencies", &source), ("dev-dependencies", &all)] {
            for used in section(&manifest, section_name) {
                let named = code.contains(&used.replace('-', "_"));
                let excused = UNNAMED.iter().any(|(unnamed, _)| *unnamed == used);
                assert!(
                    named || excused,
                    "crate {name} lists {used} under [{section_name}] and never uses it"
                );
            }
        }
    }
}
