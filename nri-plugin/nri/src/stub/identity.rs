//! The name and index under which a plugin registers.

use std::fmt;

/// The longest name: an own limit, the protocol has none.
const MAX_NAME_BYTES: usize = 128;
const NAME_VARIABLE: &str = "NRI_PLUGIN_NAME";
const INDEX_VARIABLE: &str = "NRI_PLUGIN_IDX";

/// A valid name and index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: String,
    index: String,
}

/// Why a name or index is refused. The runtime would refuse it too, but say so only in its own log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Not given, and not in the environment either.
    #[error("the plugin has no {what}; give one, or let the runtime start the plugin, which sets {variable}")]
    Missing {
        /// "name" or "index".
        what: &'static str,
        /// The environment variable.
        variable: &'static str,
    },
    /// A character that NRI does not allow, or none at all.
    #[error("the plugin's name {0:?} is unusable: it must be 1 to {MAX_NAME_BYTES} letters, digits and _.+-")]
    Name(String),
    /// Anything but two digits.
    #[error("the plugin's index {0:?} is unusable: it must be two digits, for example 05")]
    Index(String),
}

impl Identity {
    /// Checks a name and an index.
    pub fn new(name: impl Into<String>, index: impl Into<String>) -> Result<Identity, IdentityError> {
        let (name, index) = (name.into(), index.into());
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"_.+-".contains(&c);
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(allowed) {
            return Err(IdentityError::Name(name));
        }
        if index.len() != 2 || !index.bytes().all(|c| c.is_ascii_digit()) {
            return Err(IdentityError::Index(index));
        }
        Ok(Identity { name, index })
    }

    /// What the runtime says goes before what the plugin says of itself.
    pub(super) fn from_environment(name: Option<String>, index: Option<String>) -> Result<Identity, IdentityError> {
        let missing = |what, variable| IdentityError::Missing { what, variable };
        let said = |variable| std::env::var(variable).ok().filter(|value| !value.is_empty());
        Identity::new(
            said(NAME_VARIABLE).or(name).ok_or_else(|| missing("name", NAME_VARIABLE))?,
            said(INDEX_VARIABLE).or(index).ok_or_else(|| missing("index", INDEX_VARIABLE))?,
        )
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The index.
    pub fn index(&self) -> &str {
        &self.index
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runtime_would_refuse_is_refused_here() {
        assert_eq!(Identity::new("a_b.c+d-9", "00").unwrap().to_string(), "00-a_b.c+d-9");
        for name in ["", "a b", "a/b", "é", "a\n", &"x".repeat(MAX_NAME_BYTES + 1)] {
            assert_eq!(Identity::new(name, "10"), Err(IdentityError::Name(name.to_owned())));
        }
        for index in ["", "1", "001", "1a", "+1", "１０"] {
            assert_eq!(Identity::new("a", index), Err(IdentityError::Index(index.to_owned())));
        }
    }
}
