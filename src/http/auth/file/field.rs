//! Names of header fields in rules: of credentials, of identities, of what a service is told and says.

use http::header::{self, HeaderName};

use crate::problem::Key;
use crate::setting::{Check, Written};

/// The field in which credentials are sent.
pub(super) fn field(written: Written<String>, default: HeaderName, check: &Check<'_>) -> HeaderName {
    let key = written.key().clone();
    let Some(name) = written.into_option() else { return default };
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if !is_of_the_gateway(&name) => return name,
        Ok(name) => {
            let help = "write \"authorization\" or a field of your own, such as \"x-api-key\"";
            check.wrong(&key, format!("{name} has its own meaning"), help);
        }
        Err(_) => {
            let help = "write a name such as \"x-api-key\"";
            check.wrong(&key, format!("\"{name}\" is not the name of a header field"), help);
        }
    }
    default
}

/// Names of fields, of which some are not for the operator to name.
pub(super) fn names(
    written: Written<Vec<Written<String>>>,
    help: &str,
    is_taken: impl Fn(&HeaderName) -> bool,
    check: &Check<'_>,
) -> Option<Vec<HeaderName>> {
    let name = |written: &Written<String>| {
        let text = written.get()?;
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if !is_taken(&name) => Some(name),
            Ok(name) => {
                check.wrong(written.key(), format!("{name} has its own meaning"), help);
                None
            }
            Err(_) => {
                check.wrong(written.key(), format!("\"{text}\" is not the name of a header field"), help);
                None
            }
        }
    };
    Some(written.into_option()?.iter().filter_map(name).collect())
}

/// A field that means an identity to an upstream.
pub(super) fn identity_header(name: &str, key: &Key, check: &Check<'_>) -> Option<HeaderName> {
    let help = "write a name such as \"x-user\"";
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if !is_of_the_gateway(&name) && name != header::COOKIE => Some(name),
        Ok(name) => {
            check.wrong(key, format!("{name} has its own meaning"), help);
            None
        }
        Err(_) => {
            check.wrong(key, format!("\"{name}\" is not the name of a header field"), help);
            None
        }
    }
}

/// Fields that tell where a message ends, or belong to one connection.
pub(super) fn is_of_a_message(name: &HeaderName) -> bool {
    *name != header::CONTENT_TYPE && is_of_the_gateway(name)
}

/// Fields of messages and connections, and those that the gateway sets itself.
pub(super) fn is_of_the_gateway(name: &HeaderName) -> bool {
    const TAKEN: [&str; 24] = [
        "connection",
        "content-length",
        "content-type",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "server-timing",
        "upgrade",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-method",
        "x-forwarded-proto",
        "x-forwarded-uri",
        "x-request-id",
    ];
    TAKEN.contains(&name.as_str())
}
