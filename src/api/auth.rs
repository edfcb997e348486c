//! Who asks, and what they may: `Authorization: Bearer` keys (RFC 6750).

use std::net::IpAddr;
use std::time::SystemTime;

use axum::extract::{MatchedPath, Request};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue};
use subtle::{Choice, ConstantTimeEq};

use super::problem::{Code, Problem};
use super::remote::{self, Remote};
use super::scope::{Scope, Scopes};
use super::{Access, Key, Shared, key};
use crate::verify::settings::ApplicationId;

const NO_KEY: &str = "Bearer";
const WRONG_KEY: &str = "Bearer error=\"invalid_token\"";
const EXPIRED_KEY: &str = "Bearer error=\"invalid_token\", error_description=\"the key has expired\"";

/// The application behind a valid key.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) application: ApplicationId,
    /// The application's name.
    pub(super) name: String,
    pub(super) live: bool,
    /// Id of the key.
    pub(super) key: String,
    /// What the key may do.
    pub(super) scopes: Scopes,
}

impl Caller {
    /// Refuses with 403 what the key may not do (RFC 6750 3.1).
    pub(super) fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(scope) {
            return Ok(());
        }
        let name = scope.as_str();
        let problem = Problem::new(
            Code::InsufficientScope,
            format!("this API key lacks the scope {name}; use one that has it, or have it added to the key"),
        );
        let challenge = HeaderValue::try_from(format!("Bearer error=\"insufficient_scope\", scope=\"{name}\""));
        Err(match challenge {
            Ok(challenge) => problem.with(WWW_AUTHENTICATE, challenge),
            Err(_) => problem,
        })
    }
}

/// Finds the application whose key the request carries, or refuses with 401; with 403 where the key may not be used
/// from there.
pub(super) fn authenticate(shared: &Shared, request: &Request) -> Result<Caller, Problem> {
    let access = shared.access.load();
    let headers = request.headers();
    let from = request.extensions().get::<Remote>();
    let from = from.and_then(|remote| remote::client(*remote, headers, &access.trusted_proxies));
    let caller = identify(&access, headers, from, (shared.clock.utc)())?;
    let path = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    shared.verify.note_key_use(&caller.name, &caller.key, request.method().as_str(), path);
    Ok(caller)
}

fn identify(access: &Access, headers: &HeaderMap, from: Option<IpAddr>, now: SystemTime) -> Result<Caller, Problem> {
    let text = bearer(headers)?;
    let live = if text.starts_with(key::LIVE_PREFIX) {
        true
    } else if text.starts_with(key::TEST_PREFIX) {
        false
    } else {
        return Err(Problem::unauthorized(WRONG_KEY, "an API key begins with rp_test_ or rp_live_"));
    };
    let found = find(&access.keys, &key::hash(text));
    let application = found.and_then(|key| access.applications.get(usize::from(key.application.0)));
    let (Some(found), Some(application)) = (found, application) else {
        return Err(Problem::unauthorized(WRONG_KEY, "this API key is not known here"));
    };
    if live != application.live {
        return Err(Problem::unauthorized(
            WRONG_KEY,
            if application.live {
                "this application is live and this is a test key: use one that begins with rp_live_"
            } else {
                "this application is a sandbox and this is a live key: use one that begins with rp_test_"
            },
        ));
    }
    if let Some(expires) = found.expires.filter(|expires| *expires <= now) {
        let when = humantime::format_rfc3339_seconds(expires);
        return Err(Problem::unauthorized(EXPIRED_KEY, format!("this API key expired at {when}: use its successor")));
    }
    let allowed = |address| found.cidrs.iter().any(|network| network.contains(&address));
    if !found.cidrs.is_empty() && !from.is_some_and(allowed) {
        let place = from.map_or("an address that is not known".to_owned(), |address| address.to_string());
        return Err(Problem::new(
            Code::IpNotAllowed,
            format!("this API key may not be used from {place}; have it added to the key's cidrs"),
        ));
    }
    Ok(Caller {
        application: found.application,
        name: application.name.clone(),
        live,
        key: found.name.clone(),
        scopes: found.scopes,
    })
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(Problem::unauthorized(NO_KEY, "send the API key as Authorization: Bearer rp_test_.."));
    };
    if values.next().is_some() {
        return Err(Problem::unauthorized(NO_KEY, "send one Authorization header, not several"));
    }
    value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, text)| text.trim_matches(' '))
        .ok_or_else(|| Problem::unauthorized(NO_KEY, "the scheme is Bearer: Authorization: Bearer rp_test_.."))
}

/// Looks at every key, so that the time does not tell which one came close.
fn find<'a>(keys: &'a [Key], hash: &[u8; 32]) -> Option<&'a Key> {
    let mut found = None;
    for key in keys {
        let equal: Choice = key.hash.ct_eq(hash);
        if bool::from(equal) {
            found = Some(key);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use axum::response::IntoResponse;

    use super::*;
    use crate::api::Application;

    const TEST: &str = "rp_test_00ff";
    const LIVE: &str = "rp_live_00ff";
    const SWAPPED: &str = "rp_test_of_a_live_application";

    fn access() -> Access {
        let key = |text, application| Key::unrestricted(ApplicationId(application), key::hash(text));
        Access {
            trusted_proxies: Vec::new(),
            keys: vec![key(TEST, 0), key(LIVE, 1), key(SWAPPED, 1), key("rp_live_of_a_sandbox", 0)],
            applications: vec![
                Application { name: "demo".into(), ..Application::default() },
                Application { name: "shop".into(), live: true, ..Application::default() },
            ],
            ..Access::default()
        }
    }

    fn ask(values: &[&str]) -> Result<Caller, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        identify(&access(), &headers, None, UNIX_EPOCH)
    }

    fn bearing(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {text}")).unwrap())])
    }

    fn header(problem: Problem, name: &str) -> String {
        problem.into_response().headers()[name].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_key_names_its_application() {
        let test = ask(&["Bearer rp_test_00ff"]).unwrap();
        assert_eq!((test.name.as_str(), test.live, test.application), ("demo", false, ApplicationId(0)));
        assert_eq!(test.key, key::id(&key::hash(TEST)));
        let live = ask(&["bearer  rp_live_00ff"]).unwrap();
        assert_eq!((live.name.as_str(), live.live), ("shop", true));
    }

    #[test]
    fn everything_else_is_401_with_a_challenge_and_a_hint() {
        let cases: [(&[&str], &str); 9] = [
            (&[], "Authorization: Bearer"),
            (&["Basic cnA6eA=="], "scheme is Bearer"),
            (&["Bearer"], "scheme is Bearer"),
            (&["Bearer "], "rp_test_ or rp_live_"),
            (&["Bearer sk_test_1"], "rp_test_ or rp_live_"),
            (&["Bearer rp_test_00fe"], "not known"),
            (&["Bearer rp_test_00ff", "Bearer rp_test_00ff"], "one Authorization"),
            (&["Bearer rp_test_of_a_live_application"], "begins with rp_live_"),
            (&["Bearer rp_live_of_a_sandbox"], "begins with rp_test_"),
        ];
        for (values, hint) in cases {
            let problem = ask(values).unwrap_err();
            let document = String::from_utf8(problem.document("req_1")).unwrap();
            assert!(document.contains(hint), "{values:?}: {document}");
            let response = problem.into_response();
            assert_eq!(response.status(), 401);
            assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        }
    }

    #[test]
    fn a_key_may_do_what_its_scopes_say() {
        let mut access = access();
        access.keys[0].scopes = [Scope::VerificationsWrite].into_iter().collect();
        let caller = identify(&access, &bearing(TEST), None, UNIX_EPOCH).unwrap();
        assert!(caller.require(Scope::VerificationsWrite).is_ok());
        let problem = caller.require(Scope::CallsRead).unwrap_err();
        assert!(String::from_utf8(problem.document("req_1")).unwrap().contains("lacks the scope calls:read"));
        assert_eq!(problem.code().status(), 403);
        assert_eq!(header(problem, "www-authenticate"), "Bearer error=\"insufficient_scope\", scope=\"calls:read\"");
        assert!(Scope::ALL.into_iter().all(|scope| ask(&["Bearer rp_test_00ff"]).unwrap().require(scope).is_ok()));
    }

    #[test]
    fn a_key_ends_at_its_time() {
        let mut access = access();
        let end = UNIX_EPOCH + Duration::from_hours(500_000);
        access.keys[0].expires = Some(end);
        let at = |now| identify(&access, &bearing(TEST), None, now);
        assert!(at(end - Duration::from_millis(1)).is_ok());
        let problem = at(end).unwrap_err();
        let document = String::from_utf8(problem.document("req_1")).unwrap();
        assert!(document.contains("expired at 2027-01-15T08:00:00Z"), "{document}");
        assert_eq!(problem.code().status(), 401);
        assert!(header(problem, "www-authenticate").contains("invalid_token"));
    }

    #[test]
    fn a_key_is_good_for_its_networks_alone() {
        let mut access = access();
        access.keys[0].cidrs = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let from = |address: Option<&str>| {
            identify(&access, &bearing(TEST), address.map(|text| text.parse().unwrap()), UNIX_EPOCH)
        };
        assert!(from(Some("10.200.0.1")).is_ok() && from(Some("2001:db8::1")).is_ok());
        for (address, shown) in [(Some("11.0.0.1"), "from 11.0.0.1"), (None, "not known")] {
            let problem = from(address).unwrap_err();
            assert_eq!((problem.code(), problem.code().status().as_u16()), (Code::IpNotAllowed, 403));
            assert!(String::from_utf8(problem.document("req_1")).unwrap().contains(shown));
        }
    }
}
