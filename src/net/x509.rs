//! What a certificate says of itself: whom it stands for, and until when.

use std::time::{Duration, SystemTime};

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// What a certificate says of itself. Nobody has verified it here.
#[derive(Debug)]
pub struct Said {
    /// DNS names, lower case; wildcards as `*.shop.example`.
    pub names: Vec<Box<str>>,
    /// URIs, such as SPIFFE ids.
    pub uris: Vec<Box<str>>,
    /// E-mail addresses.
    pub mails: Vec<Box<str>>,
    /// The whole subject in the form of RFC 4514: `CN=mes,O=Shop`.
    pub subject: Box<str>,
    /// The last moment at which it is good.
    pub not_after: SystemTime,
}

/// Reads a certificate in DER.
pub fn read(der: &[u8]) -> Result<Said, String> {
    let wrong = |error: x509_cert::der::Error| format!("the certificate cannot be read: {error}");
    let certificate = Certificate::from_der(der).map_err(wrong)?;
    let certificate = certificate.tbs_certificate();
    let mut said = Said {
        names: Vec::new(),
        uris: Vec::new(),
        mails: Vec::new(),
        subject: certificate.subject().to_string().into(),
        not_after: SystemTime::UNIX_EPOCH + certificate.validity().not_after.to_unix_duration(),
    };
    let alternatives = certificate.get_extension::<SubjectAltName>().map_err(wrong)?;
    for name in alternatives.into_iter().flat_map(|(_critical, names)| names.0) {
        match name {
            GeneralName::DnsName(name) => said.names.push(name.as_str().to_ascii_lowercase().into()),
            GeneralName::UniformResourceIdentifier(uri) => said.uris.push(uri.as_str().into()),
            GeneralName::Rfc822Name(mail) => said.mails.push(mail.as_str().into()),
            _ => {}
        }
    }
    Ok(said)
}

/// How many days there are from one moment to the other: negative if that is past.
pub fn days_left(from: SystemTime, to: SystemTime) -> i64 {
    let days = |duration: Duration| i64::try_from(duration.as_secs() / 86_400).unwrap_or(i64::MAX);
    to.duration_since(from).map_or_else(|past| -days(past.duration()) - 1, days)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::read;

    #[test]
    fn a_certificate_says_whom_it_stands_for_and_until_when() {
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2030, 1, 2);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop, Inc.");
        params.distinguished_name.push(DnType::CommonName, "mes");
        params.subject_alt_names = vec![
            SanType::DnsName("MES.Example".try_into().unwrap()),
            SanType::DnsName("*.mes.example".try_into().unwrap()),
            SanType::URI("spiffe://shop.example/mes".try_into().unwrap()),
            SanType::Rfc822Name("mes@shop.example".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let said = read(certificate.der()).unwrap();
        assert_eq!(said.names, ["mes.example", "*.mes.example"].map(Box::<str>::from));
        assert_eq!(said.uris, ["spiffe://shop.example/mes"].map(Box::<str>::from));
        assert_eq!(said.mails, ["mes@shop.example"].map(Box::<str>::from));
        assert_eq!(&*said.subject, "CN=mes,O=Shop\\, Inc.");
        assert_eq!(said.not_after, SystemTime::from(rcgen::date_time_ymd(2030, 1, 2)));
        assert!(read(b"no certificate").is_err());
    }
}
