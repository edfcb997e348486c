//! How a trunk's numbers without `+` are read.

/// The country's prefixes and lengths, with the trunk's own habits.
#[derive(Debug, Clone)]
pub struct Dialplan {}
