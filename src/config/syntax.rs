//! What the TOML parser found wrong, in the operator's terms.

use toml::de::Error;

use super::errors::Span;
use super::fault::{Fault, Quoted};

/// One fault a line at most: the others follow from it.
pub(super) fn faults(text: &str, errors: &[Error]) -> Vec<(Span, Fault)> {
    let mut sorted: Vec<(Span, &str)> =
        errors.iter().map(|error| (error.span().unwrap_or_default(), error.message())).collect();
    sorted.sort_by_key(|(span, _)| span.start);
    let mut faults: Vec<(Span, Fault)> = Vec::new();
    for (span, message) in sorted {
        let same_line =
            |earlier: &Span| text.get(earlier.start..span.start).is_some_and(|between| !between.contains('\n'));
        let last = faults.last_mut().filter(|(earlier, _)| same_line(earlier));
        if message.starts_with("unexpected `=` in array") {
            // The parser takes all the rest of the file for elements.
            match last {
                Some((_, fault)) => *fault = Fault::OpenList,
                None => faults.push((span, Fault::OpenList)),
            }
            break;
        }
        if last.is_none() {
            faults.push((span, fault(message)));
        }
    }
    faults
}

fn fault(message: &str) -> Fault {
    if message.starts_with("duplicate key") {
        Fault::Doubled
    } else if message.starts_with("string values must be quoted") {
        Fault::NoValue
    } else {
        Fault::Syntax { message: Quoted::new(message.replace('\n', "; ")).to_string() }
    }
}
