//! Client certificates: whose are believed, and the role that the operator gives to one.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::net::{pem, tls, x509};

/// What is asked of clients. Two names that ask alike may share a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// The authorities that sign clients' certificates.
    pub ca_file: PathBuf,
    /// Certificates that count no more.
    pub crl_file: Option<PathBuf>,
    /// Whether there is no session without one.
    pub required: bool,
}

impl Clients {
    /// What verifies certificates by these files; errors name the file.
    pub fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let roots = tls::authorities(&self.ca_file)?;
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider());
        if let Some(file) = &self.crl_file {
            builder = builder.with_crls(pem::revocation_lists(file)?).allow_unknown_revocation_status();
        }
        if !self.required {
            builder = builder.allow_unauthenticated();
        }
        let file = self.crl_file.as_ref().unwrap_or(&self.ca_file);
        builder.build().map_err(|error| format!("{} cannot be used: {error}", file.display()))
    }
}

/// The roles of verified clients: what the operator wrote for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    named: Vec<(Named, Arc<str>)>,
    any: Option<Arc<str>>,
}

/// By what a client is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Uri(Box<str>),
    Mail(Box<str>),
    Subject(Box<str>),
    Name(Box<str>),
}

impl Roles {
    /// Gives this role to clients whose certificate has this URI (`spiffe://…`, `urn:…`), e-mail address (`a@b`),
    /// whole subject (`CN=…`), or else this DNS name; `*` is every verified client that nothing else names.
    pub fn give(&mut self, client: &str, role: &str) {
        let role = role.into();
        let named = match client {
            "*" => {
                self.any = Some(role);
                return;
            }
            uri if is_uri(uri) => Named::Uri(uri.into()),
            subject if subject.contains('=') => Named::Subject(subject.into()),
            mail if mail.contains('@') => Named::Mail(mail.into()),
            name => Named::Name(name.to_ascii_lowercase().into()),
        };
        self.named.push((named, role));
    }

    /// The role of the client that has shown this certificate, which has been verified.
    pub fn of(&self, certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
        if self.named.is_empty() {
            return self.any.clone();
        }
        let said = x509::read(certificate).ok()?;
        let is = |named: &Named| match named {
            Named::Uri(uri) => said.uris.contains(uri),
            Named::Mail(mail) => said.mails.contains(mail),
            Named::Subject(subject) => said.subject == *subject,
            Named::Name(name) => said.names.contains(name),
        };
        let named = self.named.iter().find(|(named, _)| is(named)).map(|(_, role)| role);
        named.or(self.any.as_ref()).map(Arc::clone)
    }
}

/// Whether it begins with a scheme (RFC 3986 section 3.1): no DNS name, e-mail address or subject does.
fn is_uri(client: &str) -> bool {
    let of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    client.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(of_scheme)
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::Roles;

    #[test]
    fn a_role_is_given_by_uri_mail_subject_or_name_and_by_nothing_that_only_looks_like_it() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "mes.cn");
        params.subject_alt_names = vec![
            SanType::DnsName("mes.example".try_into().unwrap()),
            SanType::DnsName("spiffe://in.a.name".try_into().unwrap()),
            SanType::URI("spiffe://shop.example/mes".try_into().unwrap()),
            SanType::URI("urn:shop:mes=1".try_into().unwrap()),
            SanType::Rfc822Name("mes@shop.example".try_into().unwrap()),
        ];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        for (client, given) in [
            ("spiffe://shop.example/mes", true),
            ("urn:shop:mes=1", true),
            ("MES.example", true),
            ("mes@shop.example", true),
            ("CN=mes.cn", true),
            ("*", true),
            ("mes.cn", false),
            ("spiffe://in.a.name", false),
            ("spiffe://shop.example/me", false),
            ("urn:shop:mes", false),
            ("CN=urn:shop:mes=1", false),
        ] {
            let mut roles = Roles::default();
            roles.give(client, "partner");
            let role = roles.of(certificate.der());
            assert_eq!(role.as_deref(), given.then_some("partner"), "{client}");
        }
    }

    #[test]
    fn the_first_that_names_a_client_counts_and_the_star_last() {
        let mut roles = Roles::default();
        roles.give("*", "known");
        roles.give("mes.example", "mes");
        let named = |name: &str| {
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            roles.of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
        };
        assert_eq!(named("mes.example").as_deref(), Some("mes"));
        assert_eq!(named("shop.example").as_deref(), Some("known"));
    }
}
