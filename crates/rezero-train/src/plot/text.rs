//! Numbers and words in tables.

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

/// `text` for a cell of a CSV file.
pub fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
