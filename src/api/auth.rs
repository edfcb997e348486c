//! Who asks: `Authorization: Bearer` keys (RFC 6750).

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use subtle::{Choice, ConstantTimeEq};

use super::problem::Problem;
use super::{Access, Key, key};
use crate::verify::settings::ApplicationId;

const NO_KEY: &str = "Bearer";
const WRONG_KEY: &str = "Bearer error=\"invalid_token\"";

/// The application behind a valid key.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) application: ApplicationId,
    /// The application's name.
    pub(super) name: String,
    pub(super) live: bool,
    /// Id of the key.
    pub(super) key: String,
}

/// Finds the application whose key the request carries, or refuses with 401.
pub(super) fn authenticate(access: &Access, headers: &HeaderMap) -> Result<Caller, Problem> {
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
    match (live, application.live) {
        (false, true) => Err(Problem::unauthorized(
            WRONG_KEY,
            "this application is live and this is a test key: use one that begins with rp_live_",
        )),
        (true, false) => Err(Problem::unauthorized(
            WRONG_KEY,
            "this application is a sandbox and this is a live key: use one that begins with rp_test_",
        )),
        _ => {
            Ok(Caller { application: found.application, name: application.name.clone(), live, key: found.name.clone() })
        }
    }
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
    use axum::http::HeaderValue;
    use axum::response::IntoResponse;

    use super::*;
    use crate::api::Application;

    const TEST: &str = "rp_test_00ff";
    const LIVE: &str = "rp_live_00ff";
    const SWAPPED: &str = "rp_test_of_a_live_application";

    fn access() -> Access {
        let key = |text, application| {
            let hash = key::hash(text);
            Key { application: ApplicationId(application), hash, name: key::id(&hash) }
        };
        Access {
            keys: vec![key(TEST, 0), key(LIVE, 1), key(SWAPPED, 1), key("rp_live_of_a_sandbox", 0)],
            applications: vec![
                Application { name: "demo".into(), live: false },
                Application { name: "shop".into(), live: true },
            ],
        }
    }

    fn ask(values: &[&str]) -> Result<Caller, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        authenticate(&access(), &headers)
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
}
