//! Which clients' addresses are let in: by a listener, or by a route.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::setting::network::Network;
use crate::setting::{Check, Written};

/// Networks that are let in, and networks that are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Those that are let in; none is everybody.
    pub allow: Vec<IpNet>,
    /// Those that are not, even if they are allowed.
    pub deny: Vec<IpNet>,
}

impl Addresses {
    /// Whose requests are let in, in words.
    pub fn told(&self) -> String {
        let listed =
            |networks: &[IpNet]| networks.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ");
        let allowed = if self.allow.is_empty() { "everybody".to_owned() } else { listed(&self.allow) };
        if self.deny.is_empty() { allowed } else { format!("{allowed}, but not {}", listed(&self.deny)) }
    }

    /// Whether this one is let in.
    pub fn admit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

/// Addresses as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(expecting = "{ allow = [\"10.0.0.0/8\"], deny = [\"10.6.6.6\"] }")]
pub struct WrittenAddresses {
    /// Networks that are let in; everybody without it.
    allow: Written<Vec<Written<Network>>>,
    /// Networks that are not, even if they are allowed; nobody without it.
    deny: Written<Vec<Written<Network>>>,
}

impl WrittenAddresses {
    /// The addresses as used; `None` lets everybody in.
    pub fn check(self, check: &Check<'_>) -> Option<Addresses> {
        if self.allow.is_absent() && self.deny.is_absent() {
            return None;
        }
        if self.allow.get().is_some_and(Vec::is_empty) {
            let help = "name a network, or leave the key out for everybody";
            check.wrong(self.allow.key(), "is empty: nobody would be let in", help);
        }
        let networks = |written: Written<Vec<Written<Network>>>| {
            written.into_elements().map(|Network(network)| network).collect()
        };
        Some(Addresses { allow: networks(self.allow), deny: networks(self.deny) })
    }
}

#[cfg(test)]
mod tests {
    use super::Addresses;

    #[test]
    fn who_is_allowed_and_not_denied_is_let_in() {
        let addresses = |allow: &[&str], deny: &[&str]| {
            let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            Addresses { allow: networks(allow), deny: networks(deny) }
        };
        for (allow, deny, address, admitted) in [
            (&["10.0.0.0/8"][..], &[][..], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "11.1.2.3", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["10.1.2.3/32"], &["10.0.0.0/8"], "10.1.2.3", false),
            (&[], &["10.0.0.0/8"], "10.1.2.3", false),
            (&[], &["10.0.0.0/8"], "11.1.2.3", true),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", true),
            (&["fd00::/8"], &[], "fd00::1", true),
            (&["0.0.0.0/0"], &[], "fd00::1", false),
        ] {
            let admits = addresses(allow, deny).admit(address.parse().unwrap());
            assert_eq!(admits, admitted, "{address} {allow:?} {deny:?}");
        }
    }
}
