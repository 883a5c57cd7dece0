//! How many connections one client has open: the bound of one address, or of one network of IPv6.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// How many connections each client has open; clients without one are not kept.
#[derive(Debug, Default)]
pub struct PerClient(Mutex<HashMap<IpAddr, usize>>);

/// A connection of a client, counted until this drops.
#[derive(Debug)]
pub struct OfClient {
    clients: Arc<PerClient>,
    client: IpAddr,
}

impl PerClient {
    /// One more connection of this client; `None` if it has this many already.
    pub fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<OfClient> {
        let client = client(address);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(OfClient { clients: Arc::clone(self), client })
    }
}

impl Drop for OfClient {
    fn drop(&mut self) {
        let mut open = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = open.entry(self.client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Who has one address of IPv6 has the 64 bits below it, too.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::PerClient;

    #[test]
    fn a_client_is_an_address_or_a_network_and_is_forgotten_with_its_last_connection() {
        let clients = Arc::new(PerClient::default());
        let enter = |address: &str| clients.enter(address.parse().unwrap(), 2);
        let held =
            [enter("192.0.2.1"), enter("::ffff:192.0.2.1"), enter("2001:db8::1"), enter("2001:db8::2:1")];
        assert!(held.iter().all(Option::is_some));
        assert!(enter("192.0.2.1").is_none() && enter("2001:db8::3").is_none());
        assert!(enter("192.0.2.2").is_some() && enter("2001:db8:0:1::1").is_some());
        drop(held);
        assert!(clients.0.lock().unwrap().is_empty());
    }
}
