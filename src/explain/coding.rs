//! Coded copies, told: which coding a request is answered in, and whether what is stored has a copy in it.

use std::borrow::Cow;

use http::{HeaderMap, header::ACCEPT_ENCODING};

use super::{rules, telling::Telling, walk::Cached};
use crate::{
    cache::{CODED_MAX, CODED_STATUSES, Coding, Compress, Meta, Negotiated, Uncoded},
    config::print_size,
};

/// What client and policy agree on. `fields`: the request's, as they came.
pub(super) fn negotiated(
    telling: &mut Telling<'_>,
    route: &str,
    compress: &Compress,
    fields: &HeaderMap,
    negotiated: Negotiated,
) {
    let lines = fields.get_all(ACCEPT_ENCODING).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let accepted = lines.collect::<Vec<_>>().join(", ");
    let input =
        if accepted.is_empty() { "no Accept-Encoding".to_owned() } else { format!("Accept-Encoding: {accepted}") };
    let outcome = match negotiated {
        Negotiated::Coding(coding) => format!("{}, where there is a copy in it", coding.name()),
        _ if compress.choose(fields).is_none() => {
            "the bytes as they are: it accepts no coding of the policy".to_owned()
        }
        _ => "the bytes as they are: a range, If-Match or no-transform asks for them".to_owned(),
    };
    let place = telling.place(route, "compress");
    telling.tell(rules::COMPRESS, input, outcome, place);
}

/// Whether a stored response has a copy in the coding that was agreed on. `copy` says what has become of that.
pub(super) fn copy(
    telling: &mut Telling<'_>,
    cached: &Cached,
    meta: &Meta,
    length: Option<u64>,
    copy: impl FnOnce(Coding) -> String,
) {
    let Cached { route, policy, negotiated, .. } = cached;
    let (Some(compress), Negotiated::Coding(coding)) = (&policy.compress, *negotiated) else { return };
    let uncoded = compress.why_not(meta.status, &meta.fields, length);
    let outcome = match uncoded {
        Some(why) => format!("the bytes as they are: {}", in_words(why)),
        None => copy(coding),
    };
    let key = match uncoded {
        Some(Uncoded::Size) => "compress.min_size",
        Some(Uncoded::Type) => "compress.types",
        _ => "compress",
    };
    let place = telling.place(&route.name, key);
    let length = length.map_or_else(|| "of unknown length".to_owned(), |length| format!("of {length} bytes"));
    telling.tell_besides(rules::COMPRESS, format!("a stored response {length}"), outcome, place);
}

fn in_words(why: Uncoded) -> Cow<'static, str> {
    Cow::Borrowed(match why {
        Uncoded::Size => return format!("smaller than min_size, or larger than {}", print_size(CODED_MAX)).into(),
        Uncoded::Status => {
            let statuses = CODED_STATUSES.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(", ");
            return format!("only answers with {statuses} are compressed").into();
        }
        Uncoded::Type => "its media type is none of the policy's",
        Uncoded::NeverCoded => "its type is compressed already, or is read while it comes",
        Uncoded::Coded => "the origin has coded it",
        Uncoded::Partial => "it is a part of a body",
        Uncoded::SpeaksOfBytes => "a field speaks of the very bytes that the origin sent",
        Uncoded::NotForAll => "it is for one person, or the origin forbids to transform it",
    })
}
