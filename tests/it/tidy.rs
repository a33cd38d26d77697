//! The rules of the house, held by reading its files; documents and code agree.

mod reference;
mod structs;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use retentiond::config::Settings;
use retentiond::decode::Reason;
use retentiond::output::metrics::{self, Kind};

/// What each module of the crate may import. Not listed: `cli` and `daemon`, which see everything.
const LAYERS: [(&str, &[&str]); 21] = [
    ("event", &[]),
    ("tls", &[]),
    ("files", &[]),
    ("bus", &[]),
    ("status", &["bus", "event"]),
    ("kafka", &["bus", "event", "status", "tls"]),
    ("engine", &["event"]),
    ("decode", &["event"]),
    ("checkpoint", &["bus", "engine", "event"]),
    ("config", &["decode", "event", "kafka", "tls"]),
    ("registry", &["decode", "tls"]),
    ("shop", &["event"]),
    ("worker", &["bus", "decode", "engine", "event"]),
    ("replay", &["bus", "decode", "engine", "event", "files"]),
    ("output", &["bus", "decode", "engine", "event", "kafka", "status", "worker"]),
    ("http", &["bus", "engine", "event", "output", "status", "worker"]),
    ("webhook", &["bus", "event", "kafka", "output", "status", "tls"]),
    (
        "coordinator",
        &["bus", "checkpoint", "config", "decode", "engine", "event", "kafka", "output", "status", "worker"],
    ),
    (
        "wiring",
        &[
            "bus",
            "checkpoint",
            "config",
            "coordinator",
            "decode",
            "engine",
            "event",
            "kafka",
            "output",
            "registry",
            "tls",
            "worker",
        ],
    ),
    (
        "offline",
        &[
            "bus",
            "checkpoint",
            "config",
            "coordinator",
            "decode",
            "event",
            "kafka",
            "output",
            "replay",
            "wiring",
            "worker",
        ],
    ),
    (
        "repartition",
        &[
            "bus",
            "config",
            "coordinator",
            "decode",
            "event",
            "kafka",
            "offline",
            "output",
            "status",
            "wiring",
            "worker",
        ],
    ),
];
const SEE_EVERYTHING: [&str; 2] = ["cli", "daemon"];

/// The crates that the engine may use.
const ENGINE_CRATES: [&str; 10] =
    ["foldhash", "hashbrown", "indexmap", "jiff", "serde", "sha2", "smallvec", "uuid", "xxhash_rust", "zerocopy"];
/// What of `std` would be I/O, a clock or concurrency.
const IMPURE: [&str; 9] = ["env", "fs", "io", "net", "os", "path", "process", "thread", "time"];

const MAX_MAIN_LINES: usize = 60;
const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 90;

const PROGRAM: &str = env!("CARGO_BIN_EXE_retentiond");

// Code -----------------------------------------------------------------------------------------------------------------

#[test]
fn modules_import_only_what_their_layer_allows() {
    let layers: BTreeMap<_, _> = LAYERS.into_iter().collect();
    let mut faults = String::new();
    for file in sources() {
        let module = file.module();
        if ["lib", "main"].contains(&module) || SEE_EVERYTHING.contains(&module) {
            continue;
        }
        let Some(allowed) = layers.get(module) else {
            _ = writeln!(faults, "{}: the module {module} has no line in LAYERS", file.path);
            continue;
        };
        for (line, imported) in file.names_behind("crate::") {
            if imported != module && !allowed.contains(&imported.as_str()) {
                _ = writeln!(faults, "{}:{line}: {module} must not know {imported}", file.path);
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn the_engine_is_pure() {
    let dependencies = dependencies();
    let mut faults = String::new();
    for file in sources().filter(|file| file.module() == "engine") {
        for (line, path) in file.paths() {
            if dependencies.contains(&path[0]) && !ENGINE_CRATES.contains(&path[0].as_str()) {
                _ = writeln!(faults, "{}:{line}: the engine must not use {}", file.path, path.join("::"));
            }
        }
        for (line, name) in file.names_behind("std::") {
            if IMPURE.contains(&name.as_str()) {
                _ = writeln!(faults, "{}:{line}: the engine must not use std::{name}", file.path);
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn unsafe_stays_below_kafka() {
    let outside = sources().filter(|file| file.module() != "kafka");
    let faults: Vec<_> = outside.flat_map(|file| file.lines_with_word("unsafe")).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn files_and_functions_stay_short() {
    let mut faults = String::new();
    for path in rust_files("src") {
        let lines = read(&path).lines().count();
        let most = if path == "src/main.rs" { MAX_MAIN_LINES } else { MAX_FILE_LINES };
        if lines > most {
            _ = writeln!(faults, "{path}: {lines} lines; at most {most}");
        }
    }
    for file in sources() {
        for (line, name, length) in file.functions() {
            if length > MAX_FUNCTION_LINES {
                _ = writeln!(
                    faults,
                    "{}:{line}: fn {name} has {length} lines; at most {MAX_FUNCTION_LINES}",
                    file.path
                );
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

/// Each test binary is another link of the whole program, and a file that no module names is never run.
#[test]
fn there_are_few_test_binaries_and_every_file_belongs_to_one() {
    let files = rust_files("tests");
    let is_root = |path: &&String| path.matches('/').count() == 1 || path.ends_with("/main.rs");
    let roots: Vec<_> = files.iter().filter(is_root).collect();
    assert!((3..=4).contains(&roots.len()), "{roots:?}");
    let mut faults = String::new();
    for path in files.iter().filter(|path| !is_root(path)) {
        let (dir, name) = path.trim_end_matches(".rs").trim_end_matches("/mod").rsplit_once('/').unwrap();
        let parents = [format!("{dir}.rs"), format!("{dir}/mod.rs"), format!("{dir}/main.rs")];
        let parents: String =
            parents.iter().filter(|parent| files.contains(parent)).map(|parent| read(parent)).collect();
        if !parents.contains(&format!("mod {name};")) {
            _ = writeln!(faults, "{path} belongs to no test binary");
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

// Documents ------------------------------------------------------------------------------------------------------------

#[test]
fn every_metric_that_is_named_exists() {
    let defined: BTreeSet<&str> = metrics::definitions().map(|metric| metric.name).collect();
    let histograms: BTreeSet<&str> =
        metrics::definitions().filter(|metric| metric.kind == Kind::Histogram).map(|metric| metric.name).collect();
    let mut faults = String::new();
    let mut names_seen = 0;
    let monitoring = ["deploy/prometheus", "grafana"].into_iter().flat_map(|dir| files_below(dir, &["yml", "json"]));
    for path in documents().into_iter().chain(monitoring) {
        let text = read(&path);
        for (line, name) in metric_names(&text) {
            names_seen += 1;
            if !defined.contains(name) && !histograms.contains(name.strip_suffix("_bucket").unwrap_or_default()) {
                _ = writeln!(faults, "{path}:{line}: there is no metric {name}");
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
    assert!(names_seen > 100, "only {names_seen} names found; does the search still work?");
}

#[test]
fn every_figure_and_reason_is_documented() {
    let dead_letters = read("docs/integrate/dead-letters.md");
    let mut faults = String::new();
    for reason in Reason::ALL {
        if !dead_letters.contains(&format!("| `{}` |", reason.label())) {
            _ = writeln!(faults, "docs/integrate/dead-letters.md lacks a row of the reason `{}`", reason.label());
        }
    }
    let definitions = read("docs/definitions.md");
    for figure in metrics::definitions().filter_map(metrics::Metric::figure) {
        if !definitions.contains(&format!("`{figure}`")) {
            _ = writeln!(faults, "docs/definitions.md does not define `{figure}`");
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn every_configuration_that_is_shown_loads() {
    let shown = documents().into_iter().flat_map(|path| {
        let text = read(&path);
        let blocks: Vec<_> = blocks(&text, "toml").map(|block| (path.clone(), block.line, block.text)).collect();
        blocks
    });
    let reference = ("deploy/retentiond.toml".to_owned(), 1, read("deploy/retentiond.toml"));
    // With the examples behind "# ".
    let example = |path: String| (path.clone(), 1, read(&path).replace("\n# \"", "\n\""));
    let security = files_below("deploy/security", &["toml"]).into_iter().map(example);
    let all: Vec<_> = shown.chain([reference]).chain(security).collect();
    assert!(all.len() > 3, "only {} configurations found; does the search still work?", all.len());
    let dir = tempfile::tempdir().unwrap();
    let mut faults = String::new();
    for (path, line, text) in all {
        let file = dir.path().join("shown.toml");
        fs::write(&file, text).unwrap();
        if let Err(errors) = Settings::load_without_secrets(Some(&file), std::iter::empty()) {
            _ = writeln!(faults, "{path}:{line}: {errors}");
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn every_verb_that_is_named_exists_and_has_help() {
    let help = run(Command::new(PROGRAM).arg("--help"));
    let verbs: BTreeSet<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.contains("run") && verbs.contains("replay"), "no verbs in:\n{help}");
    for verb in &verbs {
        assert!(run(Command::new(PROGRAM).args(["help", verb])).contains("Usage:"), "{verb}");
    }
    let mut faults = String::new();
    for path in documents() {
        for (line, verb) in verbs_named(&read(&path)) {
            if !verbs.contains(verb.as_str()) {
                _ = writeln!(faults, "{path}:{line}: there is no verb {verb}");
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut faults = String::new();
    for path in documents() {
        let text = read(&path);
        let dir = Path::new(&path).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { PathBuf::from(&path) } else { dir.join(file) };
            let there = root().join(&file);
            if !there.exists() {
                _ = writeln!(faults, "{path}: {target} leads nowhere");
            } else if !heading.is_empty() && !headings(&fs::read_to_string(there).unwrap()).contains(heading) {
                _ = writeln!(faults, "{path}: {target}: no such heading");
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn every_file_that_contributors_are_sent_to_exists() {
    let text = read("CONTRIBUTING.md");
    let spans = text.split('`').skip(1).step_by(2);
    let is_path = |span: &&str| {
        let known = ["src/", "tests/", "docs/", "deploy/", "fuzz/targets", "grafana/", "benches/"];
        known.iter().any(|dir| span.starts_with(dir)) && !span.contains([' ', '{']) && !span.contains("FORMAT")
    };
    let paths: BTreeSet<&str> = spans.filter(is_path).collect();
    let missing: Vec<_> = paths.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "CONTRIBUTING.md names what does not exist: {missing:?}");
    assert!(paths.len() > 20, "only {} paths found; does the search still work?", paths.len());
}

/// Runs the commands of the README's example and finds every line that it shows, in order, in what they print.
#[test]
fn the_example_of_the_readme_is_true() {
    let readme = read("README.md");
    let commands = blocks(&readme, "sh").find(|block| block.text.contains("awk")).expect("an example with awk");
    let shown = blocks(&readme, "text").find(|block| block.line > commands.line).expect("what the example prints");
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("cdnow.csv");
    let script = commands
        .text
        .replace("target/cdnow.csv", &csv.display().to_string())
        .replace("cargo run --release --", "\"$RETENTIOND\"");
    assert!(script.contains("\"$RETENTIOND\" replay /"), "the example has changed; so must this test:\n{script}");
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]).current_dir(root()).env("RETENTIOND", PROGRAM).env_remove("RETENTIOND_LOG");
    let printed = run(&mut shell);
    let mut left = printed.lines().map(str::trim_end);
    for line in shown.text.lines().map(str::trim_end).filter(|line| *line != "...") {
        assert!(
            left.any(|printed| printed == line),
            "the README shows what is not printed, or not here:\n{line}\n\n{printed}"
        );
    }
}

// The search -----------------------------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Paths from the root, sorted, of the files below a directory whose names end so.
fn files_below(dir: &str, endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(root().join(&dir)).unwrap_or_else(|error| panic!("{dir}: {error}")) {
            let entry = entry.unwrap();
            let path = format!("{dir}/{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                left.push(path);
            } else if endings.iter().any(|ending| path.ends_with(&format!(".{ending}"))) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn rust_files(dir: &str) -> Vec<String> {
    files_below(dir, &["rs"])
}

fn documents() -> Vec<String> {
    let mut documents = files_below("docs", &["md"]);
    documents.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned));
    documents
}

/// The crates of Cargo.toml, as code spells them.
fn dependencies() -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let mut section = "";
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]"
            && let Some((name, _)) = line.split_once('=')
            && !name.starts_with('#')
        {
            found.insert(name.trim().replace('-', "_"));
        }
    }
    found
}

/// A source file without comments, texts and tests, line for line.
struct Source {
    path: String,
    code: String,
}

/// The sources of the program. Files that are declared under `#[cfg(test)]` are left out, and what they hold.
fn sources() -> impl Iterator<Item = Source> {
    let mut tests = Vec::new();
    let mut sources = Vec::new();
    for path in rust_files("src") {
        let mut code = blank_texts(&read(&path));
        let (stem, name) = path.trim_end_matches(".rs").rsplit_once('/').unwrap();
        let dir = if ["mod", "lib", "main"].contains(&name) { stem.to_owned() } else { format!("{stem}/{name}") };
        tests.extend(blank_tests(&mut code).into_iter().map(|module| format!("{dir}/{module}")));
        sources.push(Source { path, code });
    }
    sources.retain(|source| {
        let below = |test: &String| source.path == format!("{test}.rs") || source.path.starts_with(&format!("{test}/"));
        !tests.iter().any(below)
    });
    assert!(sources.len() > 40, "only {} sources found; does the search still work?", sources.len());
    sources.into_iter()
}

impl Source {
    /// `engine` for `src/engine/window.rs` and `src/engine.rs`.
    fn module(&self) -> &str {
        self.path.trim_start_matches("src/").split(['/', '.']).next().unwrap()
    }

    /// Paths of two or more parts, with their lines: `std::sync::Arc`. What stands in braces is not followed.
    fn paths(&self) -> impl Iterator<Item = (usize, Vec<String>)> {
        self.code.lines().enumerate().flat_map(|(i, line)| {
            words(line).filter(|word| word.contains("::")).map(move |word| {
                let parts = word.trim_start_matches(':').split("::").filter(|part| !part.is_empty());
                (i + 1, parts.map(str::to_owned).collect())
            })
        })
    }

    /// What stands behind a prefix such as `crate::`, with its line; also in `use crate::{a, b::c}`.
    fn names_behind(&self, prefix: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices(prefix) {
            let line = self.code[..at].matches('\n').count() + 1;
            let rest = &self.code[at + prefix.len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => top_level_names(group),
                None => words(rest).next().into_iter().collect(),
            };
            found.extend(names.iter().map(|name| (line, name.split("::").next().unwrap().to_owned())));
        }
        found
    }

    fn lines_with_word(&self, wanted: &str) -> Vec<String> {
        let lines = self.code.lines().enumerate();
        let found = lines.filter(|(_, line)| words(line).any(|word| word == wanted));
        found.map(|(i, line)| format!("{}:{}: {}", self.path, i + 1, line.trim())).collect()
    }

    /// Line, name and length in lines of each function that has a body.
    fn functions(&self) -> Vec<(usize, String, usize)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            if self.code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let rest = &self.code[at + 3..];
            let Some(name) = words(rest).next().filter(|name| rest.starts_with(name)) else { continue };
            let Some(open) = rest.find(['{', ';']).filter(|&open| rest.as_bytes()[open] == b'{') else { continue };
            let end = closing_brace(rest, open);
            let line = self.code[..at].matches('\n').count() + 1;
            found.push((line, name.to_owned(), rest[..end].matches('\n').count() + 1));
        }
        found
    }
}

/// Runs of letters, digits, `_` and `::`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .map(|word| word.trim_end_matches(':'))
        .filter(|word| !word.is_empty())
}

/// The first words of the items of a `use` group, up to its closing brace.
fn top_level_names(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.extend(words(&group[start..i]).next());
                start = i + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

/// The place behind the brace that closes the one at `open`.
fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return open + i + 1;
        }
    }
    code.len()
}

/// Code with blanks for what stands in comments, texts and characters; lines stay where they are.
fn blank_texts(code: &str) -> String {
    let bytes = code.as_bytes();
    let mut out = String::with_capacity(code.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &code[at..];
        let end = match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'"' => text_end(rest),
            b'r' if !out.ends_with(|before: char| before.is_alphanumeric() || before == '_') => raw_text_end(rest),
            b'\'' => character_end(rest),
            _ => 0,
        };
        if end == 0 {
            let c = rest.chars().next().unwrap();
            out.push(c);
            at += c.len_utf8();
        } else {
            out.extend(rest[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            at += end;
        }
    }
    out
}

fn text_end(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// 0 unless a raw text begins here.
fn raw_text_end(rest: &str) -> usize {
    let hashes = rest[1..].bytes().take_while(|&byte| byte == b'#').count();
    if rest.as_bytes().get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let open = 2 + hashes;
    rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
}

/// 0 unless a character begins here: `'a` is a lifetime.
fn character_end(rest: &str) -> usize {
    if rest.starts_with("'\\") {
        return rest[3..].find('\'').map_or(0, |end| end + 4);
    }
    let c = rest[1..].chars().next().map_or(0, char::len_utf8);
    if rest[1 + c..].starts_with('\'') { c + 2 } else { 0 }
}

/// Blanks every item under `#[cfg(test)]`; answers the modules among them that have a file of their own.
fn blank_tests(code: &mut String) -> Vec<String> {
    const MARK: &str = "#[cfg(test)]";
    let mut modules = Vec::new();
    while let Some(at) = code.find(MARK) {
        let item = &code[at + MARK.len()..];
        let open = item.find(['{', ';']).expect("an item under #[cfg(test)]");
        let end = if item.as_bytes()[open] == b'{' { closing_brace(item, open) } else { open + 1 };
        let name = item[..open].split_whitespace().skip_while(|word| *word != "mod").nth(1);
        if item.as_bytes()[open] == b';'
            && let Some(name) = name
        {
            modules.push(name.to_owned());
        }
        let range = at..at + MARK.len() + end;
        let blank: String = code[range.clone()].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(range, &blank);
    }
    modules
}

/// Names that begin with `retentiond_`, with their lines. Names of recording rules, which hold a colon, are left out,
/// and so are families such as `retentiond_window_*`.
fn metric_names(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.lines().enumerate().flat_map(move |(i, line)| {
        let mut found = Vec::new();
        let mut start = 0;
        while let Some(at) = line[start..].find("retentiond_").map(|at| start + at) {
            let begin = line[..at].rfind(|c| !of_name(c)).map_or(0, |before| before + 1);
            let end = line[at..].find(|c| !of_name(c)).map_or(line.len(), |length| at + length);
            let name = line[begin..end].trim_end_matches(':');
            if begin == at && !name.contains(':') && !line[end..].starts_with('*') {
                found.push((i + 1, name));
            }
            start = end;
        }
        found
    })
}

/// A block of a document between fences.
struct Block {
    line: usize,
    text: String,
}

fn blocks<'a>(document: &'a str, language: &'a str) -> impl Iterator<Item = Block> + 'a {
    let mut lines = document.lines().enumerate();
    std::iter::from_fn(move || {
        let (line, _) = lines.by_ref().find(|(_, line)| line.strip_prefix("```") == Some(language))?;
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        Some(Block { line: line + 1, text: inside.fold(String::new(), |text, line| text + line + "\n") })
    })
}

/// The verbs behind `retentiond` in code spans and shell blocks, with their lines.
fn verbs_named(document: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fence = None;
    for (i, line) in document.lines().enumerate() {
        if let Some(language) = line.strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language) };
            continue;
        }
        let spans: Vec<&str> = match fence {
            None => line.split('`').skip(1).step_by(2).collect(),
            Some("sh") => vec![line],
            Some(_) => continue,
        };
        for span in spans {
            let words: Vec<&str> = span.split_whitespace().collect();
            let behind = |program: &[&str]| {
                let at = words.windows(program.len()).position(|window| window == program)?;
                words.get(at + program.len()).copied()
            };
            let verb = behind(&["retentiond"]).or(behind(&["--release", "--"]));
            let is_verb = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
            found.extend(verb.filter(is_verb).map(|verb| (i + 1, verb.to_owned())));
        }
    }
    found
}

/// The anchors of a document's headings.
fn headings(document: &str) -> BTreeSet<String> {
    let headings = document.lines().filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}
