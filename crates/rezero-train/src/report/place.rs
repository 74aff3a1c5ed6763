//! Where a run was computed and on which data, in words.

use crate::device;
use crate::record::Environment;

/// The data of a run, as `env.json` records it: name, number of items, SHA-256 of training and
/// validation data.
struct Data<'a> {
    name: &'a str,
    items: usize,
    hashes: Vec<&'a str>,
}

impl<'a> Data<'a> {
    /// None if the text has another form: a program that trains its own module gives any text.
    fn of(text: &'a str) -> Option<Self> {
        let mut words = text.rsplitn(3, ' ');
        let hashes: Vec<&str> = words.next()?.split('+').collect();
        let is_hash = |hash: &&str| !hash.is_empty() && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let items = words.next()?.parse().ok()?;
        let name = words.next()?;
        hashes.iter().all(is_hash).then_some(Self {
            name,
            items,
            hashes,
        })
    }
}

/// The first digits of a hash; `env.json` has all of them.
fn short(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}

/// The device of a run and the processors beside it.
pub(super) fn machine(environment: &Environment) -> String {
    let device = device::plainly(&environment.device);
    let processors = match environment.processors {
        1 => "1 processor".to_owned(),
        n => format!("{n} processors"),
    };
    format!("{device}, {processors}")
}

/// The data of a run whose items are called `items`.
pub(super) fn data(environment: &Environment, items: &str) -> String {
    let Some(data) = Data::of(&environment.data) else {
        return environment.data.clone();
    };
    let count = grouped(data.items);
    let hashes: Vec<&str> = data.hashes.iter().map(|hash| short(hash)).collect();
    let hashes = hashes.join(", validation ");
    format!("{}, {count} training {items} (SHA-256 {hashes})", data.name)
}

/// The data of a run for a label: name and number of items; with `hash`, the beginning of its hashes
/// too.
pub(super) fn data_label(text: &str, hash: bool) -> String {
    let Some(data) = Data::of(text) else {
        return text.to_owned();
    };
    let mut words = vec![data.name.to_owned(), data.items.to_string()];
    if hash {
        words.extend(data.hashes.iter().map(|hash| short(hash).to_owned()));
    }
    words.join("/")
}

/// Digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_told_in_words() {
        let of = |text: &str| {
            let environment = Environment {
                data: text.to_owned(),
                ..Environment::default()
            };
            data(&environment, "bytes")
        };
        let text = "enwik8-4mb 3600000 81fda0858f6d6b72+d388caeeaf5a7429";
        let words = "enwik8-4mb, 3,600,000 training bytes (SHA-256 81fda085, validation d388caee)";
        assert_eq!(of(text), words);
        assert_eq!(
            of("my file 12 1234"),
            "my file, 12 training bytes (SHA-256 1234)"
        );
        for other in ["", "two moons", "a 12 xyz", "a b c"] {
            assert_eq!(of(other), other);
        }
        assert_eq!(data_label(text, false), "enwik8-4mb/3600000");
        let long = "enwik8-4mb/3600000/81fda085/d388caee";
        assert_eq!(data_label(text, true), long);
        assert_eq!(data_label("two moons", true), "two moons");
        let numbers = [0, 999, 1000, 45_000, 3_600_000].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "45,000", "3,600,000"]);
    }

    #[test]
    fn machines_are_told_in_words() {
        let environment = Environment {
            device: "Device<Flex(Cpu)>".to_owned(),
            processors: 2,
            ..Environment::default()
        };
        assert_eq!(machine(&environment), "Flex on the CPU, 2 processors");
    }
}
