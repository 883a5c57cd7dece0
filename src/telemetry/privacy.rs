//! What of the client may leave the process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::settings::{ClientAddress, Privacy};

impl Privacy {
    /// As much of the client's address as may leave.
    pub fn client_address(&self, address: IpAddr) -> Option<IpAddr> {
        match self.client_address {
            ClientAddress::Off => None,
            ClientAddress::Truncated => Some(truncated(address.to_canonical())),
            ClientAddress::Full => Some(address.to_canonical()),
        }
    }
}

/// The first 24 bits of IPv4, 48 of IPv6.
fn truncated(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 80)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientAddress, Privacy};

    #[test]
    fn only_as_much_of_an_address_leaves_as_was_allowed() {
        use ClientAddress::{Full, Off, Truncated};
        let cases = [
            (Off, "192.0.2.77", None),
            (Truncated, "192.0.2.77", Some("192.0.2.0")),
            (Truncated, "::ffff:192.0.2.77", Some("192.0.2.0")),
            (Truncated, "2001:db8:1:2:3:4:5:6", Some("2001:db8:1::")),
            (Full, "2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2:3:4:5:6")),
        ];
        for (client_address, address, expected) in cases {
            let privacy = Privacy { client_address };
            let left = privacy.client_address(address.parse().unwrap()).map(|left| left.to_string());
            assert_eq!(left.as_deref(), expected, "{client_address:?} {address}");
        }
    }
}
