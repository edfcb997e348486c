//! Lines that are nobody's own phone: payphones, prisons, operator positions.

use crate::sip::message::Param;

/// The kind of a line that proves no person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialLine {
    /// A public telephone.
    Payphone,
    /// A telephone of a prison.
    Prison,
    /// An operator's position, or a call set up by one.
    Operator,
}

impl SpecialLine {
    /// The name in traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Payphone => "payphone",
            Self::Prison => "prison",
            Self::Operator => "operator",
        }
    }
}

/// What a parameter tells of the line: the calling party's category (`cpc`, as ISUP has it) or the originating line
/// information (`isup-oli`, `oli`).
pub(super) fn told(param: &Param<'_>) -> Option<SpecialLine> {
    let value = param.value?;
    let is = |name: &str| param.name.eq_ignore_ascii_case(name.as_bytes());
    match param.name.len() {
        3 if is("cpc") => category(value),
        3 if is("oli") => line_information(value),
        8 if is("isup-oli") => line_information(value),
        _ => None,
    }
}

fn category(value: &[u8]) -> Option<SpecialLine> {
    let kinds = [SpecialLine::Payphone, SpecialLine::Prison, SpecialLine::Operator];
    kinds.into_iter().find(|kind| value.eq_ignore_ascii_case(kind.as_str().as_bytes()))
}

/// ANI II digits as the North American plan assigns them.
fn line_information(value: &[u8]) -> Option<SpecialLine> {
    match value {
        b"27" | b"70" => Some(SpecialLine::Payphone),
        b"29" => Some(SpecialLine::Prison),
        b"30" | b"34" => Some(SpecialLine::Operator),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::address::Address;

    #[test]
    fn f18_categories_are_found_in_every_place() {
        for (uri, kind) in [
            ("sip:+12025550143;cpc=payphone@c", Some(SpecialLine::Payphone)),
            ("sip:+12025550143@c;CPC=Prison", Some(SpecialLine::Prison)),
            ("tel:+12025550143;cpc=operator", Some(SpecialLine::Operator)),
            ("sip:+12025550143;isup-oli=29@c", Some(SpecialLine::Prison)),
            ("sip:+12025550143@c;oli=27", Some(SpecialLine::Payphone)),
            ("sip:+12025550143;cpc=ordinary;isup-oli=00@c", None),
            ("sip:cpc=payphone@c", None),
        ] {
            let bracketed = format!("<{uri}>");
            assert_eq!(Address::parse(bracketed.as_bytes()).unwrap().signs().line, kind, "{uri}");
        }
    }
}
