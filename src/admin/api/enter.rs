//! `/api/me`, `/api/login`, `/api/logout`: who looks at the page.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, SET_COOKIE};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::read;
use crate::admin::door::{Door, Refusal, Who};
use crate::admin::page::{Page, json as page};
use crate::admin::role::Right;
use crate::admin::session::{Session, Sessions};
use crate::admin::ways::Way;
use crate::net::serve::Client;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

/// Who somebody is, and what they may do; what the page needs to know.
pub(in crate::admin) fn me(who: Option<&Who>, session: Option<&Session>, jaeger: Option<&str>) -> Page {
    let may = |who: &Who| {
        let rights = Right::ALL.into_iter().filter(|(_, right)| who.may(*right));
        rights.map(|(word, _)| word).collect::<Vec<_>>()
    };
    let role = match who {
        Some(Who::Named(known)) => Some(known.role.word()),
        _ => None,
    };
    page(
        StatusCode::OK,
        &json!({
            "version": who.map(|_| env!("CARGO_PKG_VERSION")),
            "login_needed": who.is_none(),
            "who": who.map(|who| who.told().0.to_string()),
            "role": role,
            "rights": who.map(may).unwrap_or_default(),
            "session": session.is_some(),
            "csrf": session.map(|session| &*session.csrf),
            "jaeger_url": jaeger,
        }),
    )
}

/// Opens a session for whoever shows a token, one of ours or of the issuer's; tells the audit who.
pub(in crate::admin) async fn login(
    door: &Door,
    sessions: &Sessions,
    request: Request<Incoming>,
    from: IpAddr,
) -> Result<(Page, (Arc<str>, Option<Way>)), LoginError> {
    let Login { token } = read(request, r#"{"token":"…"}"#).await.map_err(LoginError::Unreadable)?;
    // as if it had come in the header; what cannot stand there is no token
    let shown = HeaderValue::try_from(format!("Bearer {}", token.trim()));
    let shown = shown.unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    let headers = HeaderMap::from_iter([(AUTHORIZATION, shown)]);
    let client = Client { address: from, certificate: None };
    let who = door.pass(Right::Look, &headers, &client).await.map_err(LoginError::Refused)?;
    let told = who.told();
    // where nobody is asked, there is nothing to log in to
    let Who::Named(known) = who else { return Err(LoginError::Refused(Refusal::WrongToken)) };
    let role = known.role.word();
    let (cookie, csrf) = sessions.open(known);
    let mut answer = page(StatusCode::OK, &json!({ "who": &*told.0, "role": role, "csrf": &*csrf }));
    answer.headers_mut().insert(SET_COOKIE, cookie);
    Ok((answer, told))
}

/// Why nobody is let in.
pub(in crate::admin) enum LoginError {
    /// What was sent is no login.
    Unreadable(Page),
    /// The token does not open the page.
    Refused(Refusal),
}

/// Ends a session.
pub(in crate::admin) fn logout(sessions: &Sessions, session: Option<&Session>) -> Page {
    let mut answer = page(StatusCode::OK, &json!({ "done": true }));
    if let Some(session) = session {
        answer.headers_mut().insert(SET_COOKIE, sessions.end(session));
    }
    answer
}
