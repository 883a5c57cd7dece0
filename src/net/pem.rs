//! Reading certificates and private keys from PEM files, with errors that name the file and what is wrong.

use std::fs;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// The certificates of a file, in its order; at least one.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(file)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{} is not valid PEM: {}", file.display(), told(&error)))?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate (BEGIN CERTIFICATE)", file.display()));
    }
    Ok(certificates)
}

/// The revocation lists of a file; at least one.
pub fn revocation_lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let text = read(file)?;
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{} is not valid PEM: {}", file.display(), told(&error)))?;
    if lists.is_empty() {
        return Err(format!("{} holds no revocation list (BEGIN X509 CRL)", file.display()));
    }
    Ok(lists)
}

/// The first private key of a file.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if contains(&text, b"ENCRYPTED PRIVATE KEY") => {
            format!("{} holds an encrypted private key; it must be stored without a password", file.display())
        }
        pem::Error::NoItemsFound => format!("{} holds no private key (BEGIN PRIVATE KEY)", file.display()),
        error => format!("{} is not valid PEM: {}", file.display(), told(&error)),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
}

/// What is wrong with the PEM text. The library's own words print text as numbers.
fn told(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the line {:?} is missing", String::from_utf8_lossy(end_marker))
        }
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        error => error.to_string(),
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn errors_name_the_file_and_what_is_wrong() {
        let cases: [(&str, &str, &str); 5] = [
            ("", "holds no certificate", "holds no private key"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "is missing", "is missing"),
            ("-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n", "is not base64", "is not base64"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "holds no certificate",
                "without a password",
            ),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "is not base64", "is not base64"),
        ];
        for (text, certificate_error, key_error) in cases {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let name = file.path().display().to_string();
            for (error, expected) in [
                (certificates(file.path()).unwrap_err(), certificate_error),
                (private_key(file.path()).unwrap_err(), key_error),
            ] {
                assert!(error.starts_with(&name) && error.contains(expected), "{text:?}: {error}");
            }
        }
        let absent = Path::new("/nowhere/at/all.pem");
        assert!(certificates(absent).unwrap_err().starts_with("/nowhere/at/all.pem cannot be read: "));
    }
}
