//! Numbers as people read them: thousands apart, times in a unit that fits.

/// Units of time with their nanoseconds, the smallest first.
static UNITS: [(f64, &str); 3] = [(1e3, "µs"), (1e6, "ms"), (1e9, "s")];

/// A count, with a comma between thousands.
pub(super) fn count(count: u64) -> String {
    grouped(&count.to_string())
}

/// A number that is not negative: whole ones with a comma between thousands, others with at most three decimals.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let decimals = decimals.trim_end_matches('0');
    let whole = grouped(whole);
    if decimals.is_empty() { whole } else { format!("{whole}.{decimals}") }
}

/// A rate: whole from a hundred on, with one decimal below.
pub(super) fn rate(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { grouped(&format!("{value:.0}")) }
}

/// A time in nanoseconds with three digits or more, in the largest unit of which it is one at least.
pub(super) fn span(nanoseconds: f64) -> String {
    let (value, unit) = scaled(nanoseconds);
    let decimals = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// A time in nanoseconds that stands at a tick, without zeros behind the point.
pub(super) fn tick(nanoseconds: f64) -> String {
    let (value, unit) = scaled(nanoseconds);
    format!("{} {unit}", number(value))
}

fn scaled(nanoseconds: f64) -> (f64, &'static str) {
    let fits = |(size, _): &&(f64, &str)| nanoseconds / size < 999.5;
    let &(size, unit) = UNITS.iter().find(fits).unwrap_or(&UNITS[UNITS.len() - 1]);
    (nanoseconds / size, unit)
}

/// Puts a comma between the thousands of a text of digits.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        let cases = [
            (0.0, "0.00 µs"),
            (1_234.0, "1.23 µs"),
            (99_960.0, "100 µs"),
            (999_400.0, "999 µs"),
            (999_600.0, "1.00 ms"),
            (12_340_000.0, "12.3 ms"),
            (1.5e9, "1.50 s"),
            (3e11, "300 s"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(span(nanoseconds), text);
        }
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.25, 5.0, 20_000.0].map(number), ["0.25", "5", "20,000"]);
        assert_eq!([0.04, 99.9, 99.97, 150_000.4].map(rate), ["0.0", "99.9", "100", "150,000"]);
        assert_eq!([200.0, 5e4, 1e9].map(tick), ["0.2 µs", "50 µs", "1 s"]);
    }
}
