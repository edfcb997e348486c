//! Which pages may read an answer: the application's origins, matched exactly (CORS, the Fetch standard).
//!
//! Credentials are never allowed: the token is in the URL, and a cookie would mean nothing here.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::api::problem::{Code, Problem};

/// The origin of the page that asks, once it is known to be allowed; none where the request comes from the node's own
/// origin or from no page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Page(Option<HeaderValue>);

impl Page {
    /// Checks the `Origin` of a request.
    pub(super) fn of(headers: &HeaderMap, allowed: &[String]) -> Result<Self, Problem> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(Self(None)) };
        let listed = allowed.iter().any(|one| one.as_bytes() == origin.as_bytes());
        if listed && origins.next().is_none() {
            return Ok(Self(Some(origin.clone())));
        }
        Err(Problem::new(
            Code::OriginNotAllowed,
            "pages of this origin may not follow the application's verifications; allowed_origins of the application \
             lists those that may, each as a browser sends it, such as https://shop.example",
        ))
    }

    /// The headers that let the page read the answer.
    pub(super) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let readable = self.0.clone().map(|origin| {
            [
                (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
                (ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After, X-Request-Id")),
            ]
        });
        [(VARY, HeaderValue::from_static("Origin"))].into_iter().chain(readable.into_iter().flatten())
    }
}

/// What a preflight is told besides.
pub(super) fn preflight_headers() -> [(HeaderName, HeaderValue); 3] {
    [
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET")),
        (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Last-Event-ID, Cache-Control")),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(origins: &[&str]) -> Result<Vec<String>, Problem> {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let allowed = ["https://shop.example".to_owned(), "http://localhost:3000".to_owned()];
        let page = Page::of(&headers, &allowed)?;
        Ok(page.headers().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect())
    }

    #[test]
    fn a_listed_origin_is_told_back_and_no_credentials_are() {
        for origin in ["https://shop.example", "http://localhost:3000"] {
            let headers = ask(&[origin]).unwrap();
            assert_eq!(headers[..2], ["vary: Origin".to_owned(), format!("access-control-allow-origin: {origin}")]);
            assert!(headers.iter().all(|header| !header.contains("credentials")));
        }
        assert_eq!(ask(&[]).unwrap(), ["vary: Origin"], "no page at all");
    }

    #[test]
    fn every_other_origin_is_refused() {
        for origin in [
            "",
            "null",
            "*",
            "http://shop.example",
            "https://shop.example:443",
            "https://shop.example/",
            "https://SHOP.example",
            "https://shop.example.evil.example",
            "https://evil.shop.example",
            "http://localhost:3001",
        ] {
            assert_eq!(ask(&[origin]).unwrap_err().code(), Code::OriginNotAllowed, "{origin}");
        }
        assert!(ask(&["https://shop.example", "https://evil.example"]).is_err());
    }
}
