//! A telephone number out of a URI (RFC 3966, RFC 3261 19.1.6).

use super::dialplan::Dialplan;
use super::evidence::Finding;
use crate::e164::E164;
use crate::sip::message::uri::unescape;
use crate::sip::message::{Params, Uri};

/// Longest user part that is looked at, escapes decoded.
const MAX_USER: usize = 64;

/// Digits from which on a user that begins with a letter is no name such as `trunk1`, but a number in disguise.
const NUMBER_IN_A_NAME: usize = 7;

/// What a URI says about a telephone number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Nothing that looks like a number: a name, `anonymous`, an empty user, zeros alone.
    Nothing,
    /// Digits that are no E.164 number by the trunk's dialplan.
    Invalid,
    /// A number.
    Number(E164),
}

impl From<Reading> for Finding {
    fn from(reading: Reading) -> Self {
        match reading {
            Reading::Nothing => Self::Nothing,
            Reading::Invalid => Self::Invalid,
            Reading::Number(number) => Self::Number(number),
        }
    }
}

/// Reads a number that stands by itself.
#[must_use]
pub fn text(text: &[u8], plan: &Dialplan) -> Reading {
    subscriber(text, Params(b""), plan)
}

/// Reads the number of a URI. A password is never looked at.
#[must_use]
pub fn read(uri: &Uri<'_>, plan: &Dialplan) -> Reading {
    match uri {
        Uri::Sip(uri) => subscriber(uri.user, uri.user_params, plan),
        Uri::Tel(uri) => subscriber(uri.number, uri.params, plan),
        Uri::Other => Reading::Nothing,
    }
}

/// Every E.164 reading that the user of a URI allows, best first: for dialled numbers, which are compared with the
/// numbers that this node owns.
pub fn candidates(uri: &Uri<'_>, plan: &Dialplan) -> impl Iterator<Item = E164> + use<> {
    let (user, params) = match uri {
        Uri::Sip(uri) => (uri.user, uri.user_params),
        Uri::Tel(uri) => (uri.number, uri.params),
        Uri::Other => (&b""[..], Params(b"")),
    };
    let by_plan = match subscriber(user, params, plan) {
        Reading::Number(number) => Some(number),
        Reading::Nothing | Reading::Invalid => None,
    };
    // Behind a plus the digits have one reading.
    let mut digits = Digits::default();
    let readable = (by_plan.is_none() || user.first() != Some(&b'+')) && digits.collect(user, plan);
    let without_plus = readable.then(|| E164::from_digits(digits.as_slice()).ok()).flatten();
    by_plan.into_iter().chain(without_plus)
}

fn subscriber(user: &[u8], params: Params<'_>, plan: &Dialplan) -> Reading {
    // As nearly all networks send it.
    if let [b'+', digits @ ..] = user
        && plan.takes_plus_as_it_is()
        && let Ok(number) = E164::from_digits(digits)
    {
        return Reading::Number(number);
    }
    let mut digits = Digits::default();
    let readable = digits.collect(user, plan);
    let is_name = user.first().is_some_and(u8::is_ascii_alphabetic) && digits.length < NUMBER_IN_A_NAME;
    if !digits.any_but_zero() || is_name {
        return Reading::Nothing;
    }
    if !readable {
        return Reading::Invalid;
    }
    let number = if digits.plus {
        plan.read_with_plus(digits.as_slice())
    } else if let Some([b'+', context @ ..]) = params.value("phone-context") {
        let mut code = Digits::default();
        // A global context has a digit (RFC 3966 3, `global-number-digits`).
        let readable = code.collect(context, plan) && code.length > 0;
        readable.then(|| plan.read_in_context(code.as_slice(), digits.as_slice())).flatten()
    } else {
        plan.read(digits.as_slice())
    };
    number.map_or(Reading::Invalid, Reading::Number)
}

/// Digits without the visual separators of RFC 3966 5.1.1, and whether a `+` stood before them.
#[derive(Default)]
struct Digits {
    buffer: [u8; 24],
    length: usize,
    plus: bool,
}

impl Digits {
    /// Takes the digits out of `text`, without the trunk's tech prefix; whether there was nothing else in it.
    fn collect(&mut self, text: &[u8], plan: &Dialplan) -> bool {
        let mut decoded = [0u8; MAX_USER];
        let is_plain = text.len() <= MAX_USER && !text.contains(&b'%');
        let Some(text) = (if is_plain { Some(text) } else { unescape(text, &mut decoded) }) else {
            // Too long for a number, but with digits it is still not nothing.
            self.buffer[0] = b'9';
            self.length = 1;
            return false;
        };
        let mut readable = true;
        let text = plan.without_tech_prefix(text);
        for (index, &byte) in text.iter().enumerate() {
            match byte {
                b'0'..=b'9' => match self.buffer.get_mut(self.length) {
                    Some(place) => {
                        *place = byte;
                        self.length += 1;
                    }
                    None => readable = false,
                },
                b'+' if index == 0 => self.plus = true,
                b'-' | b'.' | b'(' | b')' | b' ' => {}
                _ => readable = false,
            }
        }
        readable
    }

    fn as_slice(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    fn any_but_zero(&self) -> bool {
        self.as_slice().iter().any(|&digit| digit != b'0')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::dialplan::NumberFormat;

    fn gb(uri: &str) -> Reading {
        let plan = Dialplan::for_country("GB", NumberFormat::Auto).unwrap();
        read(&Uri::parse(uri.as_bytes()).unwrap(), &plan)
    }

    #[test]
    fn numbers_are_read_from_any_legal_form() {
        let number = Reading::Number("+447700900123".parse().unwrap());
        for uri in [
            "sip:+447700900123@c.example",
            "tel:+44-7700-900123",
            "tel:+44(7700)900.123",
            "sip:%2B447700900123@c.example",
            "sip:+447700900123:secret@c.example",
            "sip:+447700900123;npdi;rn=+447700900000@c.example",
            "sip:07700900123@c.example",
            "tel:7700900123;phone-context=+44",
            "tel:07700900123;phone-context=op.example",
        ] {
            assert_eq!(gb(uri), number, "{uri}");
        }
    }

    #[test]
    fn names_are_nothing_and_bad_digits_invalid() {
        for uri in [
            "sip:anonymous@a.invalid",
            "sip:gw.example",
            "sip:0000000000@c",
            "sip:+@c",
            "sip:Coinline/Payphone@c",
            "sip:trunk1@c",
        ] {
            assert_eq!(gb(uri), Reading::Nothing, "{uri}");
        }
        let long = format!("sip:{}@c", "1".repeat(200));
        for uri in [
            "sip:7700900123@c",
            "sip:+0500000123@c",
            "sip:1234#447700900123@c",
            "sip:+4477009001234567@c",
            "sip:u+447700900123@c",
            "tel:2020;phone-context=+44",
            &long,
        ] {
            assert_eq!(gb(uri), Reading::Invalid, "{uri}");
        }
    }
}
