//! `key=value` from the command line.

/// One `key=value` from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The key: `lr` if only one section has it, else `optimizer.lr`. The name of a section that
    /// comes in kinds, such as `optimizer`, stands for its kind.
    pub key: String,
    /// The value as typed.
    pub value: String,
}

impl Override {
    /// Sets `key` to `value`.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
        }
    }

    /// The value: TOML where it parses as such, else a bare string.
    pub(crate) fn parsed(&self) -> toml::Value {
        format!("v = {}", self.value)
            .parse::<toml::Table>()
            .ok()
            // What follows a # would be a comment, which nobody types here.
            .filter(|table| table.len() == 1 && !self.value.contains('#'))
            .and_then(|mut table| table.remove("v"))
            .unwrap_or_else(|| toml::Value::String(self.value.clone()))
    }
}

impl std::str::FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok(Self::new(key.trim(), value.trim())),
            _ => Err(format!(
                "`{text}` is not of the form key=value (for example epochs=10)"
            )),
        }
    }
}
