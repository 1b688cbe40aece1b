//! The `carillon` program.
fn main() {}
