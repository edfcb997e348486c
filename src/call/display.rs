//! A number in a display name, where some switches put the caller and leave From to the trunk.

use super::dialplan::Dialplan;
use super::number::{self, Reading};

/// Reads the number of a display name, quotes and escapes taken off. A name with letters is no number.
#[must_use]
pub fn read(name: &[u8], plan: &Dialplan) -> Reading {
    let name = name.trim_ascii();
    let inside = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\""));
    let name = inside.map_or(name, <[u8]>::trim_ascii);
    if name.iter().any(|byte| byte.is_ascii_alphabetic() || !byte.is_ascii() || *byte == b'\\') {
        return Reading::Nothing;
    }
    number::text(name, plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::dialplan::NumberFormat;

    #[test]
    fn f33_numbers_are_read_and_names_are_none() {
        let plan = Dialplan::for_country("GB", NumberFormat::Auto).unwrap();
        let number = Reading::Number("+447700900123".parse().unwrap());
        for name in ["\"07700900123\"", "07700900123", "\" +44 7700 900123 \"", "\"+44 (7700) 900-123\""] {
            assert_eq!(read(name.as_bytes(), &plan), number, "{name}");
        }
        for name in ["", "\"\"", "\"Alice\"", "\"Alice 07700900123\"", "Anonymous"] {
            assert_eq!(read(name.as_bytes(), &plan), Reading::Nothing, "{name}");
        }
        assert_eq!(read(b"\"12345\"", &plan), Reading::Invalid);
    }
}
