//! Values of the configuration: as written and as used.
//!
//! A component's file types are made of leaves in [`Written`]; its constructor turns them into the settings
//! as used and tells [`Check`] what is wrong.

pub mod address;
pub mod check;
pub mod count;
pub mod digest;
pub mod duration;
pub mod hash;
pub mod leaf;
pub mod moment;
pub mod name;
pub mod network;
pub mod one_or_many;
pub mod or_off;
pub mod ratio;
pub mod secret;
pub mod size;
pub mod written;

pub use address::Address;
pub use check::Check;
pub use count::Count;
pub use digest::Digest;
pub use duration::Duration;
pub use hash::Hash;
pub use moment::Moment;
pub use or_off::OrOff;
pub use ratio::Ratio;
pub use secret::Secret;
pub use size::Size;
pub use written::Written;
