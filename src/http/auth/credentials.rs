//! Where credentials stand in a request's header.

use http::header::{self, HeaderMap, HeaderName};

use super::verdict::Refusal;
use crate::failure::Detail;

/// The credentials in this field: behind `Bearer` in `Authorization` (RFC 6750 section 2.1), else its whole value.
/// Other schemes of `Authorization` are none of ours.
pub fn find<'a>(headers: &'a HeaderMap, field: &HeaderName, most: usize) -> Result<&'a str, Refusal> {
    let malformed = || Refusal::unauthenticated(Detail::Malformed);
    let mut values = headers.get_all(field).iter();
    let value = values.next().ok_or_else(Refusal::missing)?;
    if values.next().is_some() {
        // whoever reads the other one may see somebody else
        return Err(malformed());
    }
    let value = value.to_str().map_err(|_| malformed())?.trim_matches([' ', '\t']);
    let shown = if field == header::AUTHORIZATION {
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::missing());
        }
        token.trim_start_matches(' ')
    } else {
        value
    };
    if shown.is_empty() || shown.len() > most { Err(malformed()) } else { Ok(shown) }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName};

    use super::find;
    use crate::failure::Detail;

    #[test]
    fn credentials_stand_once_behind_their_scheme() {
        use Detail::{Malformed, MissingCredentials as Missing};
        for (field, values, expected) in [
            ("authorization", &["Bearer abc"][..], Ok("abc")),
            ("authorization", &["bearer  abc "], Ok("abc")),
            ("authorization", &["Basic abc"], Err(Missing)),
            ("authorization", &[], Err(Missing)),
            ("authorization", &["Bearer"], Err(Malformed)),
            ("authorization", &["Bearer "], Err(Malformed)),
            ("authorization", &["Bearer abc", "Bearer abc"], Err(Malformed)),
            ("authorization", &["Bearer abc", "Basic abc"], Err(Malformed)),
            ("authorization", &["Bearer a b\u{fc}"], Err(Malformed)),
            ("authorization", &["Bearer 123456789"], Err(Malformed)),
            ("x-api-key", &["abc"], Ok("abc")),
            ("x-api-key", &[""], Err(Malformed)),
            ("x-api-key", &["a", "b"], Err(Malformed)),
        ] {
            let mut headers = HeaderMap::new();
            let field = HeaderName::from_static(field);
            for value in values {
                headers.append(&field, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let found = find(&headers, &field, 8).map_err(|refusal| refusal.detail);
            assert_eq!(found, expected, "{field} {values:?}");
        }
    }
}
