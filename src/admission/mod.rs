//! May this app have these names, and until when?
//!
//! Facts first, verdict after: others ask files, DNS and the store; what they found is judged
//! here, by rules that know no socket, no file and no clock.

pub mod certificate;
pub mod dns;
pub mod evidence;
pub mod manifest;
mod quota;
pub mod readiness;
pub mod refusal;
pub mod rules;
mod settings;
pub mod sight;
pub mod warning;
pub mod watch;

pub use settings::Settings;
