//! The names of the variants of an enum, in files, on command lines and in messages.

use std::fmt;

/// A name that stands for none of the choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// The kind of choice, such as "residual scheme".
    pub kind: &'static str,
    /// The name that was given.
    pub given: String,
    /// The known names.
    pub names: Vec<&'static str>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown {} {:?}; choose one of {}",
            self.kind,
            self.given,
            self.names.join(", ")
        )
    }
}

impl std::error::Error for UnknownName {}

/// Defines an enum without data whose variants have names. Serde, [`Display`](fmt::Display),
/// [`FromStr`](std::str::FromStr) and, with feature `schema`, the JSON schema use these names.
macro_rules! vocabulary {
    (
        $kind:literal;
        $(#[$meta:meta])*
        pub enum $enum:ident {
            $($(#[$doc:meta])* $variant:ident = $name:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum $enum {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)+
        }

        impl $enum {
            /// All of them, in the order of their definition.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in files and on command lines.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $enum {
            type Err = $crate::UnknownName;

            fn from_str(given: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().find(|one| one.name() == given);
                found.copied().ok_or_else(|| $crate::UnknownName {
                    kind: $kind,
                    given: given.to_owned(),
                    names: Self::ALL.iter().map(|one| one.name()).collect(),
                })
            }
        }
    };
}
pub(crate) use vocabulary;
