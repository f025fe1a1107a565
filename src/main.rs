//! mse-proxy.
fn main() {}
