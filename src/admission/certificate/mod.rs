//! What a certificate says, as facts: names, dates, keys, and what stands above it.
//!
//! Bytes in, values out. Nothing here trusts anybody: whether a certificate fits an app is judged
//! elsewhere, and whether clients believe it is their affair.

mod chain;
mod enclave;
mod key;
mod links;

pub use chain::{Certificate, Chain, ChainError, MAX_CERTIFICATES};
pub use enclave::Quote;
pub use key::{KeyFinding, match_key};
pub use links::{End, Roots, Torn, end, torn};
