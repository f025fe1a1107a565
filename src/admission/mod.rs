//! May this app have these names, and until when?
//!
//! Facts first, verdict after: others ask files, DNS and the store; what they found is judged
//! here, by rules that know no socket, no file and no clock.

pub mod certificate;
pub mod manifest;
