//! Numbers and words in tables.

use crate::words::on_a_line;

/// Four significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if (0.01..10_000.0).contains(&v) => {
            let digits = (3.0 - v.log10().floor()).clamp(0.0, 5.0) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.2e}"),
    }
}

/// `text` for a cell of a CSV file, on one line. A spreadsheet takes a cell that begins as a formula for one,
/// so it gets an apostrophe in front.
pub fn quoted(text: &str) -> String {
    let text = on_a_line(text);
    let text = match text.starts_with(['=', '+', '-', '@', '\t']) {
        true => format!("'{text}"),
        false => text.into_owned(),
    };
    match text.contains([',', '"']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// `text` for a cell of a Markdown table: on one line, and without links, images, HTML or the end of the cell.
pub fn cell(text: &str) -> String {
    let mut shown = String::new();
    let text = on_a_line(text);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' | '|' | '[' | ']' | '`' => shown.extend(['\\', c]),
            '&' => shown.push_str("&amp;"),
            // Before a space, `<` does not begin HTML, and p values contain it.
            '<' if chars.peek() != Some(&' ') => shown.push_str("&lt;"),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_hold_what_they_are_given() {
        for (text, markdown, csv) in [
            ("rezero lr=0.1", "rezero lr=0.1", "rezero lr=0.1"),
            ("p < 0.001", "p < 0.001", "p < 0.001"),
            ("a|b\\|c", r"a\|b\\\|c", r"a|b\|c"),
            (
                "![x](http://a/b)",
                r"!\[x\](http://a/b)",
                "![x](http://a/b)",
            ),
            (
                "<b>&#8238;`,\"",
                r#"&lt;b>&amp;#8238;\`,""#,
                r#""<b>&#8238;`,""""#,
            ),
            (
                "a\nb\u{1b}\u{202e}",
                r"a\\nb\\u{1b}\\u{202e}",
                r"a\nb\u{1b}\u{202e}",
            ),
            ("=1+1", "=1+1", "'=1+1"),
            ("@a,b", "@a,b", r#""'@a,b""#),
        ] {
            assert_eq!(cell(text), markdown);
            assert_eq!(quoted(text), csv);
        }
    }
}
