//! An order as it travels: texts, because every node has hashes and routes of its own.

use serde::{Deserialize, Serialize};

/// What is to be forgotten. Texts are normal already: hosts in lower case, paths as request targets are.
///
/// A field that is not known may make an order narrower or wider: who reads it cannot tell, and takes it for everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Order {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<Url>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub surrogate_keys: Vec<String>,
    /// Cache groups, each with its origin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Their path is a beginning, of any number of bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Url>,
    /// Without ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
    /// Expire in place of forget.
    #[serde(skip_serializing_if = "is_false")]
    pub soft: bool,
    /// URLs are meant whatever their query.
    #[serde(skip_serializing_if = "is_false")]
    pub ignore_query: bool,
    /// An unsafe request of a client, in place of an operator.
    #[serde(skip_serializing_if = "is_false")]
    pub by_client: bool,
}

/// A URL without its scheme.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Url {
    /// Lower case, without a trailing dot; an IPv6 address in brackets.
    pub host: String,
    /// `None`: the scheme's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path, with the query if there is one.
    pub target: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Order {
    /// Everything, never to be served again.
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// How many things it names.
    pub fn targets(&self) -> usize {
        self.kinds().iter().map(|(_, count)| count).sum()
    }

    /// How many things it names of each kind, by the words of `edge_purges_total`.
    pub(super) fn kinds(&self) -> [(&'static str, usize); 6] {
        let kind = |word| if self.by_client { "unsafe_method" } else { word };
        [
            (kind("url"), self.urls.len()),
            (kind("surrogate_key"), self.surrogate_keys.len()),
            (kind("group"), self.groups.len()),
            (kind("prefix"), self.prefixes.len()),
            (kind("host"), self.hosts.len()),
            (kind("all"), usize::from(self.all)),
        ]
    }

    /// Names nothing: the entry with which a log begins.
    pub fn is_empty(&self) -> bool {
        self.targets() == 0
    }

    /// Takes in what another names, where one order can say both.
    #[expect(clippy::result_large_err, reason = "an order that was not taken in is handed back as it came")]
    pub fn merge(&mut self, other: Self) -> Result<(), Self> {
        if (self.soft, self.ignore_query, self.by_client) != (other.soft, other.ignore_query, other.by_client) {
            return Err(other);
        }
        for url in other.urls {
            if !self.urls.contains(&url) {
                self.urls.push(url);
            }
        }
        self.surrogate_keys.extend(other.surrogate_keys);
        self.groups.extend(other.groups);
        self.prefixes.extend(other.prefixes);
        self.hosts.extend(other.hosts);
        self.all |= other.all;
        Ok(())
    }
}
