//! Whether the caller withholds the number (RFC 3323 4.2, RFC 3325 9.3).

use crate::sip::message::{HeaderName, Message, Uri};

/// Users by which networks say that they give no caller.
const NAMELESS: [&[u8]; 5] = [b"anonymous", b"restricted", b"private", b"unavailable", b"unknown"];

/// Whether a Privacy header asks to hide the identity. `history` and `session` hide other things; values that are not
/// known are ignored.
#[must_use]
pub fn is_requested(message: &Message<'_>) -> bool {
    message
        .values(HeaderName::Privacy)
        .flat_map(|value| value.split(|&byte| matches!(byte, b';' | b',')))
        .map(<[u8]>::trim_ascii)
        .any(|value| [&b"id"[..], b"user", b"header"].iter().any(|wanted| value.eq_ignore_ascii_case(wanted)))
}

/// Whether From hides who calls: `anonymous@anonymous.invalid` (RFC 3323 4.1.1.3) and its likes.
#[must_use]
pub fn is_anonymous(from: Option<&Uri<'_>>) -> bool {
    match from {
        Some(Uri::Sip(uri)) => {
            NAMELESS.iter().any(|name| uri.user.eq_ignore_ascii_case(name))
                || uri.host.eq_ignore_ascii_case(b"anonymous.invalid")
        }
        _ => false,
    }
}
