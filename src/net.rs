//! The network below everything else: connections going out (names, dialling, TLS), and the small server and
//! client of what is not traffic.

pub mod collect;
pub mod dial;
pub mod fetch;
pub mod file;
pub(crate) mod gzip;
pub mod lines;
pub mod once;
pub mod pem;
mod places;
pub mod resolve;
mod retry_after;
pub mod serve;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod watch;
pub mod x509;

pub use dial::{Dialed, dial};
pub use resolve::{DnsSettings, Name, Resolver};
pub use retry_after::retry_after;
pub use socket::{Socket, Unregistered};
pub use stream::Stream;
