//! The shapes of texts that rows of the table name.

use super::{TextKind, kind::Kind};
use crate::config::values;

macro_rules! texts {
    ($($(#[$attribute:meta])* $name:ident: $expected:literal, $pattern:expr, $check:expr $(, $numbers:ident)?;)*) => {
        $(
            $(#[$attribute])*
            pub(super) const $name: Kind = Kind::Text(&TextKind {
                expected: $expected,
                pattern: $pattern,
                check: $check,
                numbers: texts!(@numbers $($numbers)?),
            });
        )*
    };
    (@numbers numbers) => { true };
    (@numbers) => { false };
}

texts! {
    TEXT: "text", None, |_| Ok(());
    NAME: "a name", Some(NAME_PATTERN), values::name;
    LISTEN_ADDRESS: "an address such as 127.0.0.1:8080, \"[::]:443\" or unix:PATH", Some("^(unix:.+|.+:[0-9]+)$"),
        |text| values::listen_address(text).map(drop);
    PEER_ADDRESS: "an address such as 127.0.0.1:8101, name:443 or unix:PATH", Some("^(unix:.+|.+:[0-9]+)$"),
        |text| values::peer_address(text).map(drop);
    NETWORK: "an address or network such as 10.0.0.0/8", Some("^[0-9a-fA-F:.]+(/[0-9]+)?$"), |text| values::network(text).map(drop);
    REDIS_URL: "a URL such as redis://127.0.0.1:6379", Some("^rediss?([+](cluster|sentinel))?://"), values::redis_url;
    HOST_PATTERN: "a host such as a.test or \"*.b.test\"", None, |text| values::host_pattern(text).map(drop);
    HOST_NAME: "a host name", None, values::host_name;
    HOST_LITERAL: "a host", None, |text| values::host_literal(text).map(drop);
    METHOD: "a method such as GET", Some("^[!#$%&'*+.^_`|~0-9A-Z-]+$"), |text| values::method(text).map(drop);
    HEADER_NAME: "a field name", Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), |text| values::header_name(text).map(drop);
    HEADER_VALUE: "a field value", None, |text| values::header_value(text).map(drop), numbers;
    GLOB: "a name, * in it for any characters", None, |_| Ok(()), numbers;
    MEDIA_TYPE: "a media type such as text/html or \"text/*\"", Some("^([^/;, ]+/[^/;, ]+|[*])$"), values::media_type;
    VALUE_PATTERN: "a value, with * for any characters, or \"!*\"", None, |text| values::value_pattern(text).map(drop), numbers;
    STATUS_PATTERN: "a status such as 404 or 5xx", Some("^[1-5]([0-9][0-9]|xx)$"), |text| values::status_pattern(text).map(drop), numbers;
    RETRY_WHEN: "connect, reset or a status of 500 to 599", Some("^(connect|reset|5[0-9][0-9])$"),
        |text| values::retry_when(text).map(drop), numbers;
    STICKY_SOURCE: "path.NAME, query.NAME, cookie.NAME or header.NAME", Some("^(path|query|cookie|header)\\..+$"),
        |text| values::sticky_source(text).map(drop);
    PATH_PATTERN: "a path such as /a/{name}/b or \"/a/{*rest}\"", Some("^/"), |text| values::path_pattern(text).map(drop);
    PATH_PREFIX: "a path such as /a", Some("^/"), values::path_prefix;
    TARGET: "a path such as /healthz", Some("^/"), values::request_target;
    LOG_LEVEL: "a level such as info, or a filter such as warn,edge=debug", None, values::log_level;
    LOG_PATH: "the path of a file", Some("[/.]"), values::log_path;
    BODY: "text", None, |_| Ok(()), numbers;
}

/// For names that become metric labels.
const NAME_PATTERN: &str = "^[A-Za-z0-9_.:-]{1,128}$";

/// Names that an operator gives to policies and upstreams.
pub(super) const NAMES: &TextKind =
    &TextKind { expected: "a name", pattern: Some(NAME_PATTERN), check: values::name, numbers: true };

/// Any non-empty word, as names of query parameters and cookies.
pub(super) const WORDS: &TextKind = &TextKind {
    expected: "a name",
    pattern: Some("^.+$"),
    check: |text| if text.is_empty() { Err(String::new()) } else { Ok(()) },
    numbers: true,
};

/// Field names as keys.
pub(super) const HEADER_NAMES: &TextKind = &TextKind {
    expected: "a field name",
    pattern: Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"),
    check: |text| values::header_name(text).map(drop),
    numbers: true,
};

/// Statuses and classes of statuses as keys.
pub(super) const STATUSES: &TextKind = &TextKind {
    expected: "a status such as 404 or 5xx",
    pattern: Some("^[1-5]([0-9][0-9]|xx)$"),
    check: |text| values::status_pattern(text).map(drop),
    numbers: true,
};
