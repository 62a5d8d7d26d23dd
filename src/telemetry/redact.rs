//! Takes the values of secret query parameters out of what is logged.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What stands in place of a value.
const REDACTED: &str = "REDACTED";

/// The names of `log.access.redact_query`.
#[derive(Debug, Clone)]
pub(super) struct Redactor {
    /// Lower case.
    names: Vec<String>,
}

impl Redactor {
    pub(super) fn new(names: &[String]) -> Self {
        Self { names: names.iter().map(|name| name.to_ascii_lowercase()).collect() }
    }

    /// A target or URL with the values of secret parameters replaced; borrowed where there is none.
    ///
    /// Names are compared without case and as they read when percent-decoded. A name may begin after any of `?&;#`, since origins
    /// differ in what separates parameters; a secret value ends only at `&` or `#`, so that none shows by holding a separator itself.
    pub(super) fn redact<'a>(&self, url: &'a str) -> Cow<'a, str> {
        let mut out = String::new();
        // Bytes of `url` that `out` stands for already.
        let mut done = 0;
        let mut search = url.find(['?', '#']);
        while let Some(before) = search {
            let start = before + 1;
            let rest = &url[start..];
            let mut end = start + rest.find(['&', ';', '?', '#']).unwrap_or(rest.len());
            if let Some((name, _)) = url[start..end].split_once('=')
                && self.secret(name)
            {
                end = start + rest.find(['&', '#']).unwrap_or(rest.len());
                out.push_str(&url[done..start + name.len() + 1]);
                out.push_str(REDACTED);
                done = end;
            }
            search = (end < url.len()).then_some(end);
        }
        if done == 0 {
            return Cow::Borrowed(url);
        }
        out.push_str(&url[done..]);
        Cow::Owned(out)
    }

    fn secret(&self, name: &str) -> bool {
        let decoded = percent_decode_str(name).decode_utf8_lossy();
        self.names.iter().any(|secret| secret.eq_ignore_ascii_case(&decoded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_parameters_are_replaced_and_nothing_else() {
        let redactor = Redactor::new(&["token".into(), "Key-Pair-Id".into()]);
        let rows = [
            ("/a?token=abc", "/a?token=REDACTED"),
            ("/a?x=1&token=abc&y=2", "/a?x=1&token=REDACTED&y=2"),
            ("/a?TOKEN=abc", "/a?TOKEN=REDACTED"),
            ("/a?%74oken=abc", "/a?%74oken=REDACTED"),
            ("/a?%74%6F%6b%65%6E=abc", "/a?%74%6F%6b%65%6E=REDACTED"),
            ("/a?key-pair-id=K1&token=a&token=b", "/a?key-pair-id=REDACTED&token=REDACTED&token=REDACTED"),
            ("/a?token=", "/a?token=REDACTED"),
            ("/a?token=a=b", "/a?token=REDACTED"),
            ("/a?token=a;b?c&x=1", "/a?token=REDACTED&x=1"),
            ("/a?x=1;token=abc", "/a?x=1;token=REDACTED"),
            ("/a?x=1?token=abc", "/a?x=1?token=REDACTED"),
            ("https://a.test/#token=abc", "https://a.test/#token=REDACTED"),
            ("https://a.test/?x=1#token=abc#y", "https://a.test/?x=1#token=REDACTED#y"),
            ("/a?q=ü&token=ü", "/a?q=ü&token=REDACTED"),
            ("/a?token", "/a?token"),
            ("/a?tokens=abc&mytoken=1", "/a?tokens=abc&mytoken=1"),
            ("/token=abc", "/token=abc"),
            ("/a?", "/a?"),
            ("/a?&&", "/a?&&"),
            ("/a", "/a"),
            ("", ""),
        ];
        for (url, expected) in rows {
            let redacted = redactor.redact(url);
            assert_eq!(redacted, expected, "{url}");
            assert_eq!(matches!(redacted, Cow::Borrowed(_)), url == expected, "{url}: copied only if changed");
        }
        assert_eq!(Redactor::new(&[]).redact("/a?token=abc"), "/a?token=abc");
    }
}
