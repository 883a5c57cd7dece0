//! What of the client may leave the process: the one place that decides it.
//!
//! Everything that is recorded is of one of three classes, by where it comes from:
//!
//! - **low**: closed vocabularies (methods, status codes, reasons) and the configuration's own words (routes,
//!   templates, upstreams, operations, endpoints). [`RouteLabels`](super::operation::RouteLabels) and
//!   [`EndpointLabels`](super::operation::EndpointLabels) hold them; metrics are made of these alone, spans and
//!   records have them too. The types of [`attribute`](super::attribute) hold that.
//! - **high**: values with no bound to their number: trace and span ids, business attributes, sizes, times, and
//!   what is [`Disclosed`] because it is listed. They stand on spans, in the access log and in error records.
//! - **personal**: the client's address ([`Personal`]), and all other text of the client: nowhere, unless the operator has
//!   listed it ([`Privacy`]), which makes it *high*.
//!
//! A record keeps nothing of the client's text but business attributes and what is disclosed here, so that no
//! sink can let it out; the address passes through [`Privacy::client_address`]. What libraries and peers say
//! (panics, `grpc-message`, errors) and the `tracestate` of others are on no record at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::attribute::Personal;
use super::settings::{ClientAddress, Privacy};

/// What a request said and the operator has listed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disclosed {
    query: Box<str>,
    headers: Box<[(Arc<str>, Box<str>)]>,
}

impl Disclosed {
    /// The listed keys that the query has, in the order of the list: `page&sort`. `None` if there are none.
    pub fn query(&self) -> Option<&str> {
        Some(&*self.query).filter(|keys| !keys.is_empty())
    }

    /// The listed header fields that were sent, as attributes with their values.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(attribute, value)| (&**attribute, &**value))
    }
}

impl Privacy {
    /// As much of the client's address as may leave.
    pub fn client_address(&self, address: &Personal<IpAddr>) -> Option<IpAddr> {
        let address = address.for_exchange();
        match self.client_address {
            ClientAddress::Off => None,
            ClientAddress::Truncated => Some(truncated(address.to_canonical())),
            ClientAddress::Full => Some(address.to_canonical()),
        }
    }

    /// What may leave of a request with this query, and these values of the header field of a name.
    pub fn disclose<'r, V: Iterator<Item = &'r [u8]>>(
        &self,
        query: Option<&str>,
        header: impl Fn(&str) -> V,
    ) -> Option<Disclosed> {
        if self.query_keys.is_empty() && self.headers.is_empty() {
            return None;
        }
        let sent = || query.unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap_or(pair));
        let has = |key: &str| sent().any(|sent| percent_decode_str(sent).eq(key.bytes()));
        let keys: Vec<&str> = self.query_keys.iter().map(|key| &**key).filter(|key| has(key)).collect();
        let value = |attribute: &Arc<str>| {
            let values: Vec<&[u8]> = header(attribute.strip_prefix(HEADER)?).collect();
            (!values.is_empty()).then(|| (Arc::clone(attribute), header_value(&values.join(&b", "[..]))))
        };
        let headers = self.headers.iter().filter_map(value).collect();
        Some(Disclosed { query: keys.join("&").into(), headers })
    }
}

/// The attribute of a request's header field: its lower-case name behind this.
pub const HEADER: &str = "http.request.header.";

/// Why a header field is never recorded, whoever lists it.
pub fn never_leaves(name: &str) -> Option<&'static str> {
    let is_one_of = |names: &[&str]| names.contains(&name);
    if is_one_of(&CREDENTIALS) {
        Some("holds credentials, which never leave the gateway")
    } else if is_one_of(&ADDRESSES) {
        Some("holds the client's address, of which telemetry.privacy.client_address decides")
    } else if is_one_of(&OF_OTHERS) {
        Some("belongs to others, who decide what is in it, and never leaves the gateway")
    } else if name == "user-agent" {
        Some("tells one person's device from another's and never leaves the gateway")
    } else {
        None
    }
}

/// A field's value as it may leave: not longer than [`LONGEST`] and without control characters.
fn header_value(value: &[u8]) -> Box<str> {
    match std::str::from_utf8(value) {
        Ok(text) if value.len() <= LONGEST && !text.chars().any(char::is_control) => text.into(),
        _ => "_invalid".into(),
    }
}

/// The first 24 bits of IPv4, 48 of IPv6.
fn truncated(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 80)).into(),
    }
}

const CREDENTIALS: [&str; 10] = [
    "authentication-info",
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-access-token",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
    "x-xsrf-token",
];

const ADDRESSES: [&str; 6] =
    ["client-ip", "forwarded", "true-client-ip", "x-client-ip", "x-forwarded-for", "x-real-ip"];

const OF_OTHERS: [&str; 2] = ["baggage", "tracestate"];

/// The longest value of a header field that is recorded, in bytes.
const LONGEST: usize = 256;

#[cfg(test)]
mod tests {
    use super::{ClientAddress, HEADER, Personal, Privacy, never_leaves};

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
            let privacy = Privacy { client_address, ..Privacy::default() };
            let left =
                privacy.client_address(&Personal::new(address.parse().unwrap())).map(|left| left.to_string());
            assert_eq!(left.as_deref(), expected, "{client_address:?} {address}");
        }
    }

    /// What leaves of this query and these fields, where `page`, `sort` and `x-tenant` are listed.
    fn left(query: Option<&str>, fields: &[(&str, &str)]) -> (Option<String>, Vec<(String, String)>) {
        let privacy = Privacy {
            query_keys: ["page".into(), "sort".into()].into(),
            headers: [format!("{HEADER}x-tenant").into()].into(),
            ..Privacy::default()
        };
        let header = |name: &str| {
            let name = name.to_owned();
            fields.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_bytes())
        };
        let disclosed = privacy.disclose(query, header).unwrap();
        let headers = disclosed.headers().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        (disclosed.query().map(str::to_owned), headers)
    }

    #[test]
    fn of_a_query_only_listed_keys_leave_and_no_values() {
        for (query, expected) in [
            (None, None),
            (Some(""), None),
            (Some("token=secret"), None),
            (Some("sort=secret&token=secret&page"), Some("page&sort")),
            (Some("p%61ge=secret"), Some("page")),
            (Some("page=1&page=2"), Some("page")),
            (Some("Page=1&pages=2&=page"), None),
        ] {
            assert_eq!(left(query, &[]).0.as_deref(), expected, "{query:?}");
        }
    }

    #[test]
    fn of_a_header_only_listed_fields_leave_and_no_long_values() {
        let long = "x".repeat(257);
        for (fields, expected) in [
            (&[("x-other", "secret")][..], None),
            (&[("x-tenant", "acme"), ("x-other", "secret")], Some("acme")),
            (&[("x-tenant", "acme"), ("x-tenant", "beta")], Some("acme, beta")),
            (&[("x-tenant", "a\tb")], Some("_invalid")),
            (&[("x-tenant", &long)], Some("_invalid")),
        ] {
            let expected =
                expected.map(|value| ("http.request.header.x-tenant".to_owned(), value.to_owned()));
            assert_eq!(left(None, fields).1, expected.into_iter().collect::<Vec<_>>(), "{fields:?}");
        }
    }

    #[test]
    fn without_a_list_nothing_leaves() {
        let header = |_: &str| [&b"secret"[..]].into_iter();
        assert_eq!(Privacy::default().disclose(Some("page=1"), header), None);
    }

    #[test]
    fn credentials_and_addresses_cannot_be_listed() {
        for name in ["authorization", "cookie", "x-api-key", "x-forwarded-for", "tracestate", "user-agent"] {
            assert!(never_leaves(name).is_some(), "{name}");
        }
        assert_eq!(never_leaves("x-tenant"), None);
    }
}
