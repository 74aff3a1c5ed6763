/// The candidate that `word` was most likely meant to be, for a message's "did you mean".
///
/// It is the candidate with the smallest edit distance (Levenshtein: letters inserted, deleted and
/// replaced), without regard to case; of several, the first. Only a near candidate counts. It is
/// near if the distance is at most 2 or a third of the letters of the longer word, and the two
/// words have a letter in common. It is also near if it begins or ends with `word`.
///
/// ```
/// use rezero_data::nearest;
///
/// let recipes = ["quickstart", "cifar10-resnet20", "cifar10-resnet56"];
/// assert_eq!(nearest("quikstart", recipes), Some("quickstart"));
/// assert_eq!(nearest("resnet56", recipes), Some("cifar10-resnet56"));
/// assert_eq!(nearest("banana", recipes), None);
/// ```
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = letters(word);
    candidates
        .into_iter()
        .filter_map(|candidate| Some((distance_if_near(&word, &letters(candidate))?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn letters(word: &str) -> Vec<char> {
    word.chars().flat_map(char::to_lowercase).collect()
}

fn distance_if_near(word: &[char], candidate: &[char]) -> Option<usize> {
    let longer = word.len().max(candidate.len());
    let limit = 2.max(longer / 3).min(longer.saturating_sub(1));
    let part = !word.is_empty() && (candidate.starts_with(word) || candidate.ends_with(word));
    // The distance is at least the difference of the lengths. So a word of any length costs no
    // more than one half as long again as the candidate.
    let hopeless = word.len().abs_diff(candidate.len()) > limit;
    if hopeless && !part {
        return None;
    }
    let distance = edit_distance(word, candidate);
    (distance <= limit || part).then_some(distance)
}

/// Levenshtein's distance, row by row.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, cb) in b.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, ca) in a.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_is_levenshteins() {
        let distance = |a, b| edit_distance(&letters(a), &letters(b));
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("vaild", "valid", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
