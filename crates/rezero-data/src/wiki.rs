//! The grammar of `wiki-like`. It computes with integers only, so that every platform generates the
//! same bytes.

use std::collections::HashSet;

use crate::Split;
use crate::rng::{Purpose, Rng};

const WORDS: usize = 4096;
/// The number of preferred successors of a word.
const FOLLOWERS: usize = 4;

const ONSETS: [&str; 24] = [
    "", "b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "br", "ch",
    "gr", "pl", "sh", "st", "th",
];
const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ai", "ea", "ou"];
const CODAS: [&str; 10] = ["", "", "", "l", "m", "n", "r", "s", "t", "nd"];
const HEADINGS: [&str; 6] = [
    "History",
    "Geography",
    "Economy",
    "Culture",
    "See also",
    "External links",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const TEMPLATES: [&str; 4] = ["stub", "main", "infobox", "cite"];

/// The first `len` bytes of the pages of (seed, split).
pub(crate) fn write(len: usize, seed: u64, split: Split) -> Vec<u8> {
    let language = Language::new(seed);
    let mut writer = Writer {
        language: &language,
        rng: Rng::stream(Purpose::Wiki, &[seed, 1 + split as u64]),
        title: Vec::new(),
        word: 0,
        out: String::with_capacity(len),
    };
    let mut id = 0;
    while writer.out.len() < len {
        id += 1 + writer.rng.below(4);
        writer.page(id);
    }
    let mut bytes = writer.out.into_bytes();
    bytes.truncate(len);
    bytes
}

/// The words of a seed, the most frequent first.
struct Language {
    words: Vec<String>,
    /// Cumulative sums of the weights 1 / (rank + 3).
    cumulative: Vec<usize>,
    followers: Vec<[usize; FOLLOWERS]>,
}

impl Language {
    fn new(seed: u64) -> Self {
        let rng = &mut Rng::stream(Purpose::Wiki, &[seed, 0]);
        let mut seen = HashSet::new();
        let mut words = Vec::with_capacity(WORDS);
        while words.len() < WORDS {
            // Frequent words are short, and there are enough of each length.
            let syllables = match words.len() {
                0..64 => 1,
                64..512 => 2,
                _ => 2 + rng.below(3),
            };
            let word: String = (0..syllables)
                .flat_map(|_| [pick(rng, &ONSETS), pick(rng, &VOWELS), pick(rng, &CODAS)])
                .collect();
            if seen.insert(word.clone()) {
                words.push(word);
            }
        }
        let mut sum = 0;
        let cumulative: Vec<usize> = (0..WORDS)
            .map(|rank| {
                sum += (1 << 24) / (rank + 3);
                sum
            })
            .collect();
        let followers = (0..WORDS)
            .map(|_| [0; FOLLOWERS].map(|_| zipf(&cumulative, rng)))
            .collect();
        Self {
            words,
            cumulative,
            followers,
        }
    }
}

/// A random rank, with a probability in proportion to its weight.
fn zipf(cumulative: &[usize], rng: &mut Rng) -> usize {
    let at = rng.below(cumulative[WORDS - 1]);
    cumulative.partition_point(|&sum| sum <= at)
}

fn pick<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.below(list.len())]
}

struct Writer<'a> {
    language: &'a Language,
    rng: Rng,
    /// The words of the page's title.
    title: Vec<usize>,
    /// The last word.
    word: usize,
    out: String,
}

impl Writer<'_> {
    fn page(&mut self, id: usize) {
        let words = 1 + self.rng.below(3);
        self.title = (0..words).map(|_| self.zipf()).collect();
        let title = self.title();
        let revision = self.between(1_000_000, 42_000_000);
        let (year, month, day) = (self.between(2002, 2006), self.between(1, 12), self.day());
        let (hour, minute, second) = (self.rng.below(24), self.rng.below(60), self.rng.below(60));
        let name = self.zipf();
        let name = capital(&self.language.words[name]);
        let user = self.between(1, 99_999);
        self.out += &format!(
            "  <page>\n    <title>{title}</title>\n    <id>{id}</id>\n    <revision>\n      \
             <id>{revision}</id>\n      \
             <timestamp>{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z</timestamp>\n      \
             <contributor>\n        <username>{name}</username>\n        <id>{user}</id>\n      \
             </contributor>\n      <text xml:space=\"preserve\">'''{title}''' "
        );
        self.paragraph();
        for _ in 0..self.rng.below(5) {
            let heading = pick(&mut self.rng, &HEADINGS);
            self.out += &format!("\n== {heading} ==\n");
            match self.rng.below(3) {
                0 => self.list(),
                _ => self.paragraph(),
            }
        }
        if self.one_in(2) {
            let template = pick(&mut self.rng, &TEMPLATES);
            let year = self.between(1700, 2006);
            self.out += &format!("\n{{{{{template}|{title}|year={year}}}}}\n");
        }
        let category = self.title[0];
        let category = capital(&self.language.words[category]);
        self.out += &format!("\n[[Category:{category}]]</text>\n    </revision>\n  </page>\n");
    }

    fn paragraph(&mut self) {
        for _ in 0..self.between(1, 5) {
            self.sentence();
            self.out.push(' ');
        }
        self.out.pop();
        self.out.push('\n');
    }

    fn list(&mut self) {
        for _ in 0..self.between(2, 6) {
            self.out += "* ";
            self.link();
            self.out += ", ";
            self.words(4);
            self.out.push('\n');
        }
    }

    fn sentence(&mut self) {
        self.word = self.next();
        self.out += &capital(&self.language.words[self.word]);
        self.out.push(' ');
        let words = self.between(4, 18);
        self.words(words);
        self.out.push('.');
    }

    /// `n` words, or links, dates and numbers in their place, with blanks between them.
    fn words(&mut self, n: usize) {
        for i in 0..n {
            if i > 0 {
                let comma = self.one_in(12);
                self.out += if comma { ", " } else { " " };
            }
            match self.rng.below(64) {
                0..5 => self.link(),
                5 | 6 => {
                    let year = self.between(1700, 2006);
                    self.out += &format!("in [[{year}]]");
                }
                7 => {
                    let month = pick(&mut self.rng, &MONTHS);
                    let (day, year) = (self.day(), self.between(1700, 2006));
                    self.out += &format!("on [[{month} {day}]], [[{year}]]");
                }
                8 => {
                    let number = self.between(2, 99_999);
                    self.out += &number.to_string();
                }
                9 => self.quoted("''"),
                10 => self.quoted("&quot;"),
                11 | 12 => self.out += &self.title(),
                _ => self.plain(),
            }
        }
    }

    fn plain(&mut self) {
        self.word = self.next();
        self.out += &self.language.words[self.word];
    }

    fn quoted(&mut self, mark: &str) {
        self.out += mark;
        self.plain();
        self.out += mark;
    }

    fn link(&mut self) {
        self.out += "[[";
        self.plain();
        if self.one_in(4) {
            self.out.push('|');
            self.plain();
        }
        self.out += "]]";
    }

    /// The next word: with probability ½ a preferred successor of the last one.
    fn next(&mut self) -> usize {
        if self.rng.coin() {
            self.language.followers[self.word][self.rng.below(FOLLOWERS)]
        } else {
            self.zipf()
        }
    }

    fn title(&self) -> String {
        let words: Vec<String> = self
            .title
            .iter()
            .map(|&word| capital(&self.language.words[word]))
            .collect();
        words.join(" ")
    }

    fn zipf(&mut self) -> usize {
        zipf(&self.language.cumulative, &mut self.rng)
    }

    /// Uniform in `low..=high`.
    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.rng.below(high - low + 1)
    }

    fn day(&mut self) -> usize {
        self.between(1, 28)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.rng.below(n) == 0
    }
}

/// An ASCII word with a capital.
fn capital(word: &str) -> String {
    word[..1].to_ascii_uppercase() + &word[1..]
}
