//! `/runbook`: what each alert means and what to do. Alerts link to it. The daemon serves the runbook of its own
//! version, so nothing else is needed to read it.

use std::fmt::Write as _;
use std::sync::OnceLock;

use axum::response::IntoResponse;

use super::page::file;

const RUNBOOK: &str = include_str!("../../docs/runbook.md");

pub(super) async fn runbook() -> impl IntoResponse {
    static HTML: OnceLock<String> = OnceLock::new();
    file("text/html; charset=utf-8", HTML.get_or_init(|| document(RUNBOOK)))
}

fn document(markdown: &str) -> String {
    let body: String = markdown.split("\n\n").map(block).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Runbook · retentiond</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"style.css\">\n</head>\n<body class=\"text\">\n<main>\n\
         {body}</main>\n<footer><a href=\"./\">Figures</a></footer>\n</body>\n</html>\n"
    )
}

/// A heading, a list or a paragraph: the only kinds of blocks in the runbook.
fn block(block: &str) -> String {
    let block = block.trim();
    let level = block.bytes().take_while(|byte| *byte == b'#').count();
    if let Some(title) = block.get(level..).filter(|_| (1..=3).contains(&level)).map(str::trim) {
        // The anchor that Markdown links to headings use.
        let words = title.to_lowercase().replace(' ', "-");
        let id: String = words.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect();
        return format!("<h{level} id=\"{id}\">{}</h{level}>\n", inline(title));
    }
    match block.strip_prefix("- ") {
        Some(items) => {
            let items: String = items.split("\n- ").fold(String::new(), |mut list, item| {
                _ = write!(list, "<li>{}</li>", inline(item));
                list
            });
            format!("<ul>{items}</ul>\n")
        }
        None => format!("<p>{}</p>\n", inline(block)),
    }
}

/// Renders code, strong and emphasized words, and links. Only links to headings are kept: other documents are not
/// served.
fn inline(text: &str) -> String {
    let mut html = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[', '<', '>', '&']) {
        html.push_str(&rest[..at]);
        rest = &rest[at..];
        let (piece, length) = span(rest).unwrap_or_else(|| (escaped(&rest[..1]), 1));
        html.push_str(&piece);
        rest = &rest[length..];
    }
    html.push_str(rest);
    html
}

/// The inline element that begins here, as HTML, and its length in bytes.
fn span(text: &str) -> Option<(String, usize)> {
    for (mark, tag) in [("`", "code"), ("**", "strong"), ("*", "em")] {
        if let Some(rest) = text.strip_prefix(mark) {
            let end = rest.find(mark)?;
            let inner = if tag == "code" { escaped(&rest[..end]) } else { inline(&rest[..end]) };
            return Some((format!("<{tag}>{inner}</{tag}>"), end + 2 * mark.len()));
        }
    }
    let (words, target) = text.strip_prefix('[')?.split_once("](")?;
    let (target, _) = target.split_once(')')?;
    let html = match target.strip_prefix('#') {
        Some(id) => format!("<a href=\"#{}\">{}</a>", escaped(id), inline(words)),
        None => inline(words),
    };
    Some((html, words.len() + target.len() + "[]()".len()))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_html_and_nothing_gets_lost() {
        for (markdown, html) in [
            ("### RetentiondDown", "<h3 id=\"retentionddown\">RetentiondDown</h3>\n"),
            ("## Alerts on figures", "<h2 id=\"alerts-on-figures\">Alerts on figures</h2>\n"),
            ("a `b < c` **d *e*** f", "<p>a <code>b &lt; c</code> <strong>d *e</strong>* f</p>\n"),
            ("*a* [b](#c) [d](e.md#f)", "<p><em>a</em> <a href=\"#c\">b</a> d</p>\n"),
            ("2 * 3 & [x] <y>", "<p>2 * 3 &amp; [x] &lt;y&gt;</p>\n"),
            ("- a\n- b", "<ul><li>a</li><li>b</li></ul>\n"),
        ] {
            assert_eq!(block(markdown), html);
        }
    }

    #[test]
    fn every_alert_has_a_place_that_its_link_leads_to() {
        let (html, rules) = (document(RUNBOOK), include_str!("../../deploy/prometheus/alerts.yml"));
        let mut links = 0;
        for link in rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")) {
            let id = link.strip_prefix("http://127.0.0.1:9736/runbook#").expect("the address of the daemon");
            assert!(html.contains(&format!("<h3 id=\"{id}\">")), "{link}");
            links += 1;
        }
        assert!(links > 8, "only {links} links found; does the search still work?");
        assert!(!html.contains("](") && !html.contains("**") && !html.contains('`'), "{html}");
    }
}
