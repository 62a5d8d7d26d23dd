//! The authority of a request: a host and maybe a port.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use memchr::memchr;

use super::write::{DIGITS_MAX, decimal};

/// Bytes of a host, more than DNS can name (RFC 1035 section 2.3.4).
const HOST_MAX: usize = 255;

/// `host [ ":" port ]` (RFC 9110 section 7.2), normalised: equal authorities are equal values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// Lower case, no trailing dot; an IPv6 address in its canonical form, in brackets.
    pub host: Box<str>,
    /// As given; the default port of a scheme is not removed here.
    pub port: Option<u16>,
}

/// The text is no authority: empty, a list, with user information, with a character that no host has, or with a port
/// outside 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a host name or address with at most a port")]
pub struct BadAuthority;

impl Authority {
    /// Parses `example.test`, `example.test:8080`, `127.0.0.1`, `[::1]:8080`. An empty port (`a:`) is no port.
    ///
    /// # Errors
    /// [`BadAuthority`] for all else. Names hold ASCII letters, digits, `-`, `_` and `.` only, without empty labels:
    /// less than RFC 3986 allows, but what DNS and certificates can name.
    pub fn parse(text: &str) -> Result<Self, BadAuthority> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or(BadAuthority)?;
                let address: Ipv6Addr = address.parse().map_err(|_| BadAuthority)?;
                let port = match rest {
                    "" => None,
                    _ => Some(rest.strip_prefix(':').ok_or(BadAuthority)?),
                };
                (format!("[{address}]").into_boxed_str(), port)
            }
            None => {
                let (name, port) = match memchr(b':', text.as_bytes()) {
                    Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
                    None => (text, None),
                };
                (host_name(name)?, port)
            }
        };
        Ok(Self { host, port: port.map_or(Ok(None), port_number)? })
    }

    /// As it is written: `host[:port]`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.host.len() + ":65535".len());
        text.push_str(&self.host);
        if let Some(port) = self.port {
            text.push(':');
            text.extend(decimal(port.into(), &mut [0; DIGITS_MAX]).iter().copied().map(char::from));
        }
        text
    }
}

impl FromStr for Authority {
    type Err = BadAuthority;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

fn host_name(name: &str) -> Result<Box<str>, BadAuthority> {
    let name = name.strip_suffix('.').unwrap_or(name);
    // A label before each dot, and one after the last.
    let mut before = b'.';
    for byte in name.bytes() {
        let fits = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && before != b'.');
        if !fits {
            return Err(BadAuthority);
        }
        before = byte;
    }
    if name.len() > HOST_MAX || before == b'.' {
        return Err(BadAuthority);
    }
    let mut name: Box<str> = name.into();
    name.make_ascii_lowercase();
    Ok(name)
}

fn port_number(port: &str) -> Result<Option<u16>, BadAuthority> {
    if port.is_empty() {
        return Ok(None);
    }
    if port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadAuthority);
    }
    match port.parse() {
        Ok(0) | Err(_) => Err(BadAuthority),
        Ok(number) => Ok(Some(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_authorities_are_written_alike() {
        for (text, written) in [
            ("a", "a"),
            ("A.Test", "a.test"),
            ("a.test.", "a.test"),
            ("a.test.:080", "a.test:80"),
            ("a:", "a"),
            ("x_y-1.test:65535", "x_y-1.test:65535"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]", "[::1]"),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]:443"),
            ("[::ffff:1.2.3.4]:", "[::ffff:1.2.3.4]"),
        ] {
            let authority: Authority = text.parse().unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(authority.to_string(), written);
            assert_eq!(Authority::parse(written), Ok(authority), "{text}");
        }
    }

    #[test]
    fn what_names_no_host_is_refused() {
        let long = "a".repeat(HOST_MAX + 1);
        for text in [
            "",
            ":",
            ":80",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a b",
            "a,b",
            "a/b",
            "a@b",
            "a%41",
            "a\\b",
            "a:b",
            "a:0",
            "a:-1",
            "a:+1",
            "a:65536",
            "a:000080",
            "a:80:80",
            "a: 80",
            "\u{e9}",
            "::1",
            "[]",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]:x",
            "[a]",
            "[::1%eth0]",
            "[v1.a]",
            "a[::1]",
            &long,
        ] {
            assert_eq!(Authority::parse(text), Err(BadAuthority), "{text}");
        }
    }
}
