//! What stands in the place of a data set, in words, for messages.

use std::fs;
use std::path::Path;

/// How many names a message has.
const NAMES: usize = 3;

/// The rest of a sentence about a folder in which no data set was found: "is empty".
pub(crate) fn folder(dir: &Path) -> String {
    if fs::metadata(dir).is_err() {
        return "does not exist".to_owned();
    }
    let names = names(dir);
    let has = |name: &str| names.iter().any(|have| have == name);
    let below = |folder: &str, name: &str| dir.join(folder).join(name).exists();
    let python = has("data_batch_1") || below("cifar-10-batches-py", "data_batch_1");
    let hundred = ["train.bin", "fine_label_names.txt", "cifar-100-binary"];
    if python || has("cifar-10-python.tar.gz") {
        return "holds CIFAR-10's Python version".to_owned();
    }
    if has("data_batch_1.mat") || below("cifar-10-batches-mat", "data_batch_1.mat") {
        return "holds CIFAR-10's Matlab version".to_owned();
    }
    if hundred.iter().any(|name| has(name)) || has("cifar-100-python") {
        return "holds CIFAR-100".to_owned();
    }
    if has("cifar-10-binary.tar.gz") {
        return "holds the archive cifar-10-binary.tar.gz: unpack it, or let `rezero fetch cifar10 \
                --offline` with this --data-dir verify and unpack it"
            .to_owned();
    }
    let images: Vec<&String> = names.iter().filter(|name| is_image(name)).collect();
    if !images.is_empty() {
        return format!("holds image files ({})", listed(&images));
    }
    let classes: Vec<&String> = names
        .iter()
        .filter(|name| self::names(&dir.join(name)).iter().any(|n| is_image(n)))
        .collect();
    match (classes.is_empty(), names.is_empty()) {
        (false, _) => format!(
            "holds folders of image files ({}), which data=folder reads",
            listed(&classes)
        ),
        (true, true) => "is empty".to_owned(),
        (true, false) => format!("holds {}", listed(&names.iter().collect::<Vec<_>>())),
    }
}

fn is_image(name: &str) -> bool {
    image_end(name).is_some()
}

/// The end of an image's name in lower case, such as `png`; `None` if it is not the name of an image.
pub(crate) fn image_end(name: &str) -> Option<String> {
    const ENDS: [&str; 16] = [
        "avif", "bmp", "gif", "heic", "jfif", "jp2", "jpeg", "jpg", "jxl", "pgm", "png", "ppm",
        "tga", "tif", "tiff", "webp",
    ];
    let end = name.rsplit_once('.').map(|(_, end)| end.to_lowercase());
    end.filter(|end| ENDS.contains(&end.as_str()))
}

/// The first names of a folder's entries, in order. A folder may hold millions.
fn names(dir: &Path) -> Vec<String> {
    const LOOKED_AT: usize = 1000;
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let entries = entries.take(LOOKED_AT);
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

/// Some of the names, on one line.
fn listed(names: &[&String]) -> String {
    let first = names.iter().take(NAMES);
    let mut text: Vec<String> = first
        .map(|name| name.replace(char::is_control, "?"))
        .collect();
    if names.len() > NAMES {
        text.push("…".to_owned());
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_words() {
        for (files, said) in [
            (&[][..], "is empty"),
            (
                &["b.PNG", "a.jpg", "c.jpeg", "d.png"],
                "holds image files (a.jpg, b.PNG, c.jpeg, …)",
            ),
            (
                &["cat/1.png", "dog/2.png"],
                "holds folders of image files (cat, dog), which data=folder reads",
            ),
            (
                &["data_batch_1", "batches.meta"],
                "holds CIFAR-10's Python version",
            ),
            (
                &["cifar-10-batches-py/data_batch_1"],
                "holds CIFAR-10's Python version",
            ),
            (
                &["cifar-10-python.tar.gz"],
                "holds CIFAR-10's Python version",
            ),
            (&["data_batch_1.mat"], "holds CIFAR-10's Matlab version"),
            (&["train.bin", "test.bin"], "holds CIFAR-100"),
            (&["cifar-100-binary/train.bin"], "holds CIFAR-100"),
            (
                &["cifar-10-binary.tar.gz"],
                "holds the archive cifar-10-binary.tar.gz",
            ),
            (&["notes.txt", "a\nb"], "holds a?b, notes.txt"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for file in files {
                let file = dir.path().join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, "x").unwrap();
            }
            let found = folder(dir.path());
            assert!(found.starts_with(said), "{files:?}: {found}");
        }
        let nowhere = tempfile::tempdir().unwrap().path().join("nowhere");
        assert_eq!(folder(&nowhere), "does not exist");
    }
}
