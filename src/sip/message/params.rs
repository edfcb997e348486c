//! Parameters behind a semicolon (RFC 3261 7.3.1): `;name`, `;name=token`, `;name="quoted"`.

use super::{find, lex};

/// The parameters of a header value or URI, still as text that begins with `;` or is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params<'a>(pub &'a [u8]);

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    /// Its name, case-insensitive.
    pub name: &'a [u8],
    /// Its value as written; `None` for a name alone.
    pub value: Option<&'a [u8]>,
    /// The parameter as written, without the semicolon before it.
    pub raw: &'a [u8],
}

impl<'a> Params<'a> {
    /// The parameters in their order. Empty ones are passed over.
    #[must_use]
    pub fn iter(self) -> Iter<'a> {
        Iter(self.0)
    }

    /// The first parameter of this name: its value, or `None` inside for a name alone.
    #[must_use]
    pub fn find(self, name: &str) -> Option<Option<&'a [u8]>> {
        self.iter().find(|param| param.name.eq_ignore_ascii_case(name.as_bytes())).map(|param| param.value)
    }

    /// The value of the first parameter of this name, where it has one that is not empty.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a [u8]> {
        self.find(name).flatten().filter(|value| !value.is_empty())
    }
}

/// See [`Params::iter`].
#[derive(Debug, Clone)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        loop {
            let rest = match self.0.split_first()? {
                (b';', rest) => rest,
                (_, rest) => rest.get(find::any(rest, 0, [b';']) + 1..)?,
            };
            let (end, equals) = measure(rest);
            self.0 = &rest[end..];
            let raw = lex::trim(&rest[..end]);
            if raw.is_empty() {
                continue;
            }
            let (name, value) = match equals {
                Some(equals) => (lex::trim(&rest[..equals]), Some(lex::trim(&rest[equals + 1..end]))),
                None => (raw, None),
            };
            return Some(Param { name, value, raw });
        }
    }
}

/// Where the first parameter of `text` ends, and where its equals sign stands. An unclosed quote hides the rest.
fn measure(text: &[u8]) -> (usize, Option<usize>) {
    let mut equals = None;
    let mut index = 0;
    loop {
        index = find::any(text, index, [b';', b'=', b'"']);
        match text.get(index) {
            None | Some(b';') => return (index, equals),
            Some(b'=') => equals = equals.or(Some(index)),
            Some(_) => match lex::closing_quote(text, index) {
                Some(close) => index = close,
                None => return (text.len(), equals),
            },
        }
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_in_any_case() {
        let params = Params(br#";Tag = 1;lr;x="a;b";;rport="#);
        assert_eq!(params.value("tag"), Some(&b"1"[..]));
        assert_eq!(params.find("LR"), Some(None));
        assert_eq!(params.value("x"), Some(&br#""a;b""#[..]));
        assert_eq!(params.value("rport"), None);
        assert_eq!(params.find("rport"), Some(Some(&b""[..])));
        assert_eq!(params.find("b\""), None);
        assert_eq!(params.iter().count(), 4);
    }
}
