//! The `ringproof` program: arguments, configuration file, exit code.
fn main() {}
