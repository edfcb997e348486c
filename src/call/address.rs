//! A name-addr with its URI, cut once for all that is read out of it.

use super::line::{self, SpecialLine};
use crate::sip::message::{NameAddr, Param, Params, Uri};

/// One value of From, P-Asserted-Identity or their kin.
#[derive(Clone, Copy)]
pub(super) struct Address<'a> {
    /// The display name and the parameters behind the brackets.
    pub(super) value: NameAddr<'a>,
    /// The URI in its parts, where it can be read.
    pub(super) uri: Option<Uri<'a>>,
}

impl<'a> Address<'a> {
    pub(super) fn of(value: NameAddr<'a>) -> Self {
        Self { value, uri: Uri::parse(value.uri) }
    }

    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        NameAddr::parse(value).map(Self::of)
    }

    /// What the parameters tell of the call. An address that cannot be read has no verdict on it; what stands behind its
    /// bracket still tells of the line.
    pub(super) fn signs(&self) -> Signs<'a> {
        let [inside, behind] = match self.uri {
            Some(Uri::Sip(uri)) => [uri.user_params, uri.params],
            Some(Uri::Tel(uri)) => [uri.params, Params(b"")],
            Some(Uri::Other) | None => [Params(b""); 2],
        };
        let mut signs = Signs::default();
        for param in inside.iter().chain(behind.iter()) {
            signs.verstat = signs.verstat.or_else(|| verstat(&param));
            signs.line = signs.line.or_else(|| line::told(&param));
        }
        for param in self.value.params.iter() {
            signs.verstat = signs.verstat.or_else(|| self.uri.and_then(|_| verstat(&param)));
            signs.line_behind = signs.line_behind.or_else(|| line::told(&param));
        }
        signs
    }
}

/// See [`Address::signs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Signs<'a> {
    /// The `verstat` parameter (3GPP TS 24.229). Some carriers print it behind the bracket, where it belongs to the
    /// header field.
    pub(super) verstat: Option<&'a [u8]>,
    /// The kind of line, inside the user part or behind the URI.
    pub(super) line: Option<SpecialLine>,
    /// The kind of line behind the bracket.
    pub(super) line_behind: Option<SpecialLine>,
}

fn verstat<'a>(param: &Param<'a>) -> Option<&'a [u8]> {
    let value = param.value.filter(|value| !value.is_empty())?;
    param.name.eq_ignore_ascii_case(b"verstat").then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_read_tells_of_its_line_and_has_no_verdict() {
        let signs = Address::parse(b"<+447700900123>;verstat=TN-Validation-Passed;cpc=prison").unwrap().signs();
        assert_eq!((signs.verstat, signs.line, signs.line_behind), (None, None, Some(SpecialLine::Prison)));
        let signs = Address::parse(b"<tel:+447700900123>;verstat=TN-Validation-Passed").unwrap().signs();
        assert_eq!((signs.verstat, signs.line_behind), (Some(&b"TN-Validation-Passed"[..]), None));
    }
}
