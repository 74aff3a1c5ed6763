//! Times, sizes, commands and names in words, and text from files without control characters.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// Whether a terminal or a page does something other than show this character: it moves the cursor, changes
/// colours, reverses the order of the text around it, or is invisible. XML forbids some of them.
fn is_hidden(c: char) -> bool {
    match c {
        '\t' => false,
        // Soft hyphen; Arabic and Mongolian marks; zero width, direction marks; separators of lines and
        // paragraphs, embeddings, overrides; joiners, isolates; byte order mark; annotations; no characters;
        // tags.
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{fffe}'..='\u{ffff}'
        | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control(),
    }
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match hidden(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// `text` as one line that shows every character: a line break is `\n`, other hidden characters are
/// `\u{1b}`. Backslashes stay single.
pub fn on_a_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// `text` with its line breaks, and with every other hidden character as [`on_a_line`] shows it.
pub fn in_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_hidden(c))
}

/// A path on one line.
pub fn path(path: &Path) -> String {
    on_a_line(&path.to_string_lossy()).into_owned()
}

/// JSON on one line, in which hidden characters have JSON's own escapes.
pub fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    if !json.contains(is_hidden) {
        return Ok(json);
    }
    // Compact JSON has such characters only inside its strings.
    let mut shown = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match is_hidden(c) {
            true => shown.extend(
                c.encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}")),
            ),
            false => shown.push(c),
        }
    }
    Ok(shown)
}

/// Bytes that arrive in parts, as text that a terminal may show: line breaks stay, other hidden characters
/// and bytes that are no UTF-8 are escaped.
#[derive(Default)]
pub struct Shown {
    /// The beginning of a character whose other bytes have not arrived.
    begun: Vec<u8>,
}

impl Shown {
    /// The text of these bytes, after those that came before.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut text = String::new();
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(&in_lines(chunk.valid()));
            let is_last = chunks.peek().is_none();
            match std::str::from_utf8(chunk.invalid()) {
                Err(error) if is_last && error.error_len().is_none() => {
                    self.begun = chunk.invalid().to_vec();
                }
                _ => text.push_str(&raw(chunk.invalid())),
            }
        }
        text
    }

    /// What is left at the end.
    pub fn finish(&mut self) -> String {
        raw(&std::mem::take(&mut self.begun))
    }
}

fn raw(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// This program's command `verb` on a run, with further words, as a shell reads it.
pub fn command(verb: &str, run: &Path, more: &[&str]) -> String {
    let program = std::env::args_os().next();
    let program = program.filter(|path| !path.is_empty());
    let program = quoted(program.as_deref().unwrap_or("rezero".as_ref()));
    // `-x` would be an option.
    let is_option = run.as_os_str().as_encoded_bytes().starts_with(b"-");
    let run = match is_option {
        true => Path::new(".").join(run),
        false => run.to_owned(),
    };
    let mut words = vec![program, verb.to_owned(), quoted(run.as_os_str())];
    words.extend(more.iter().map(|word| quoted(word.as_ref())));
    words.join(" ")
}

/// The command of this process, as a shell reads it.
pub fn this_command() -> String {
    let words: Vec<String> = std::env::args_os().map(|word| quoted(&word)).collect();
    words.join(" ")
}

/// A word as a shell reads it. Bytes that are no text are shown as the replacement character. A word with
/// hidden characters is written as bash and zsh read it, `$'…'`.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "_-+=/.,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    if !word.contains(is_hidden) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let escape = |c: char| match c {
        '\\' | '\'' => format!("\\{c}"),
        c if is_hidden(c) => format!("\\U{:08x}", u32::from(c)),
        c => c.to_string(),
    };
    format!("$'{}'", word.chars().map(escape).collect::<String>())
}

/// A time to two digits or so: `8 s`, `3 min`, `2 h 5 min`, `4 d 3 h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let (minutes, hours) = ((seconds + 30) / 60, (seconds + 1800) / 3600);
    match seconds {
        0..100 => format!("{seconds} s"),
        100..5970 => format!("{minutes} min"),
        5970..84_600 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// A number of things, which `plural` names with an s at its end: `1 image`, `2 images`.
pub fn counted(n: usize, plural: &str) -> String {
    match (n, plural.strip_suffix('s')) {
        (1, Some(singular)) => format!("1 {singular}"),
        _ => format!("{n} {plural}"),
    }
}

/// A size with decimal units: `812 B`, `3.4 MB`.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    // 999.5 would be rounded to 1000.
    while value >= 999.5
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1000.0, next);
    }
    match value {
        v if unit == "B" || v >= 99.95 => format!("{v:.0} {unit}"),
        v => format!("{v:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(counted(1, "training images"), "1 training image");
        assert_eq!(counted(0, "images"), "0 images");
        assert_eq!(counted(2, "bytes"), "2 bytes");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        let of = |word: &str| quoted(word.as_ref());
        let words = [
            "runs/a_lr=0.2",
            "./α.toml",
            "",
            "my run",
            "it's",
            "$(a)",
            "it's \\ \n\u{202e}",
        ]
        .map(of);
        let shown = [
            "runs/a_lr=0.2",
            "./α.toml",
            "''",
            "'my run'",
            r"'it'\''s'",
            "'$(a)'",
            r"$'it\'s \\ \U0000000a\U0000202e'",
        ];
        assert_eq!(words, shown);
        let resume = command("train", Path::new("-x"), &["--resume", "steps=N"]);
        assert!(resume.ends_with(" train ./-x --resume steps=N"), "{resume}");
    }

    #[test]
    fn hidden_characters_are_shown() {
        for plain in [
            "",
            "a\tb",
            "α ± é ç ñ e\u{301} 漢字 עברית 🙂",
            r"C:\x",
            "“a – b”",
        ] {
            assert_eq!(on_a_line(plain), plain);
        }
        let odd = "a\n\r\0\u{1b}[31m\u{7f}\u{9b}\u{202e}\u{2066}\u{200d}\u{2028}\u{ffff}\u{e0041}";
        let line =
            r"a\n\r\u{0}\u{1b}[31m\u{7f}\u{9b}\u{202e}\u{2066}\u{200d}\u{2028}\u{ffff}\u{e0041}";
        assert_eq!(on_a_line(odd), line);
        assert_eq!(in_lines(odd), line.replacen(r"\n", "\n", 1));
        assert_eq!(in_lines("a\r\nb"), "a\\r\nb");
        let hidden = (0..=u32::from(char::MAX)).filter_map(char::from_u32);
        for c in hidden.filter(|c| is_hidden(*c)) {
            let text = json(&c).unwrap();
            assert!(text.is_ascii() && !text.contains('\u{7f}'), "{c:?}");
            assert_eq!(serde_json::from_str::<char>(&text).unwrap(), c);
        }
    }

    #[test]
    fn bytes_are_shown_as_they_arrive() {
        let bytes =
            b"a\n\x1b]0;x\x07 \xe2\x82\xac \xe2\x82 \x9b1m\xff \xc2\x9b \xf0\x9f\x99\x82 \xf0\x9f";
        let want = "a\n\\u{1b}]0;x\\u{7} € \\xe2\\x82 \\x9b1m\\xff \\u{9b} 🙂 \\xf0\\x9f";
        for size in 1..=bytes.len() {
            let mut shown = Shown::default();
            let mut text: String = bytes.chunks(size).map(|part| shown.push(part)).collect();
            text.push_str(&shown.finish());
            assert_eq!(text, want, "in parts of {size}");
        }
    }

    #[test]
    fn times_and_sizes_are_short() {
        let of = |s: f64| duration(Duration::from_secs_f64(s));
        let times = [0.2, 99.0, 100.0, 5969.0, 5970.0, 84_599.0, 84_600.0, 9e5].map(of);
        let words = [
            "0 s",
            "99 s",
            "2 min",
            "99 min",
            "1 h 40 min",
            "23 h 30 min",
            "1 d 0 h",
            "10 d 10 h",
        ];
        assert_eq!(times, words);
        let sizes = [0, 999, 1_000, 99_949, 99_950, 999_499, 999_500, u64::MAX].map(bytes);
        let words = [
            "0 B", "999 B", "1.0 kB", "99.9 kB", "100 kB", "999 kB", "1.0 MB", "18.4 EB",
        ];
        assert_eq!(sizes, words);
    }
}
