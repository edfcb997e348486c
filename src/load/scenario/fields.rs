//! The CSV with the values of `[field0]`, `[field1]`, ..
//!
//! Pure: text in, values out. As SIPp reads it: the first line tells how lines are chosen, fields are parted by `;`, a
//! line that begins with `#` is skipped, and the first empty line is the end.

/// How a call gets its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The first call the first line, and after the last the first again.
    Sequential,
    /// Any line.
    Random,
}

/// The lines of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    text: String,
    /// Where each line begins and ends.
    lines: Vec<(u32, u32)>,
    order: Order,
    columns: usize,
}

/// Why a text is no such file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// The first line names no order, or one that is not supported.
    #[error("line 1 must be SEQUENTIAL or RANDOM; USER and PRINTF are not supported")]
    Order,
    /// No line has values.
    #[error("has no line with values below the first line")]
    Empty,
    /// More bytes than places can be told of.
    #[error("is too long")]
    TooLong,
}

impl Fields {
    /// Reads a file's text.
    ///
    /// # Errors
    /// A [`FieldsError`]: the user must mend the file.
    pub fn parse(text: String) -> Result<Self, FieldsError> {
        let first = text.lines().next().unwrap_or_default();
        let order = match (first.contains("SEQUENTIAL"), first.contains("RANDOM")) {
            _ if first.contains("PRINTF") || first.contains("USER") => return Err(FieldsError::Order),
            (true, _) => Order::Sequential,
            (false, true) => Order::Random,
            (false, false) => return Err(FieldsError::Order),
        };
        let mut lines = Vec::new();
        let mut columns = usize::MAX;
        let mut start = 0;
        for (index, whole) in text.split_inclusive('\n').enumerate() {
            let line = whole.trim_end_matches(['\r', '\n']);
            let place = start;
            start += whole.len();
            if index == 0 || line.starts_with('#') {
                continue;
            }
            if line.is_empty() {
                break;
            }
            let place_of = |offset: usize| u32::try_from(offset).map_err(|_| FieldsError::TooLong);
            lines.push((place_of(place)?, place_of(place + line.len())?));
            columns = columns.min(line.split(';').count());
        }
        if lines.is_empty() {
            return Err(FieldsError::Empty);
        }
        Ok(Self { text, lines, order, columns })
    }

    /// How many fields every line has.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The line of the call of this number, from 0; `random` decides where the order is random.
    #[must_use]
    pub fn line_of(&self, call: u64, random: u64) -> usize {
        let choice = match self.order {
            Order::Sequential => call,
            Order::Random => random,
        };
        usize::try_from(choice % self.lines.len() as u64).unwrap_or_default()
    }

    /// A field of a line; empty where there is none.
    #[must_use]
    pub fn field(&self, line: usize, field: usize) -> &str {
        let line = self.lines.get(line).and_then(|&(start, end)| self.text.get(start as usize..end as usize));
        line.and_then(|line| line.split(';').nth(field)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_used_in_turn_and_again_from_the_first() {
        let fields = Fields::parse("SEQUENTIAL\r\n#no\r\n+1;+2\r\n+3;+4;x\r\n\r\n+5;+6\r\n".to_owned()).unwrap();
        assert_eq!(fields.columns(), 2);
        let taken: Vec<_> = (0..3).map(|call| fields.line_of(call, 9)).map(|line| fields.field(line, 1)).collect();
        assert_eq!(taken, ["+2", "+4", "+2"]);
        assert_eq!((fields.field(1, 2), fields.field(0, 2), fields.field(7, 0)), ("x", "", ""));
    }

    #[test]
    fn a_random_order_takes_any_line() {
        let fields = Fields::parse("RANDOM\na\nb\nc".to_owned()).unwrap();
        assert_eq!([3, 7, 11].map(|random| fields.field(fields.line_of(0, random), 0)), ["a", "b", "c"]);
    }

    #[test]
    fn faults_are_told_apart() {
        for text in ["", "USER\na\n", "SEQUENTIAL,PRINTF=3\na\n", "a;b\n"] {
            assert_eq!(Fields::parse(text.to_owned()), Err(FieldsError::Order), "{text:?}");
        }
        for text in ["SEQUENTIAL", "SEQUENTIAL\n#a\n", "RANDOM\n\na\n"] {
            assert_eq!(Fields::parse(text.to_owned()), Err(FieldsError::Empty), "{text:?}");
        }
    }
}
