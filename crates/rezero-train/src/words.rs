//! Times, sizes and commands in words.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

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

/// A word as a shell reads it. Bytes that are no text are shown as the replacement character.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "_-+=/.,:@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
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
    fn words_are_quoted_for_a_shell() {
        let of = |word: &str| quoted(word.as_ref());
        let words = ["runs/a_lr=0.2", "./α.toml", "", "my run", "it's", "$(a)"].map(of);
        let shown = [
            "runs/a_lr=0.2",
            "./α.toml",
            "''",
            "'my run'",
            r"'it'\''s'",
            "'$(a)'",
        ];
        assert_eq!(words, shown);
        let resume = command("train", Path::new("-x"), &["--resume", "steps=N"]);
        assert!(resume.ends_with(" train ./-x --resume steps=N"), "{resume}");
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
