//! `POST /v1/test/calls`: a sandbox application has a call placed at this node itself.
//!
//! Owns what such a call may carry and how its end is told. Does not know what an INVITE is: whoever wires the API hands
//! in what places a call. Invariant: what is placed can be one message only, and only a sandbox application's.

use std::fmt;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::Serialize;

use super::auth::{Caller, authenticate};
use super::create::BodyFault;
use super::fields::{Faults, Fields, expected};
use super::json::{self, Json};
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::scope::Scope;
use super::verifications::json as json_response;
use super::{Shared, body, idempotency, phone};
use crate::e164::E164;
use crate::matcher::verification::{Status, VerificationId};
use crate::verify::request::{Assurance, CreateError, LimitState, Reasons};
use crate::verify::settings::ApplicationId;
use crate::verify::{CallOutcome, Judged};

/// `POST` places a call.
pub(super) const ALL: &str = "/v1/test/calls";

/// Calls a second of one application; as many at once.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("20 is not zero");
/// Most header fields of a call.
const MAX_HEADERS: usize = 32;
/// Most bytes of a header field's name and of its value.
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 1024;

/// Fields that the call writes itself or that would lead it elsewhere, with their compact forms (RFC 3261 7.3.3).
const REFUSED: [(&str, &str); 11] = [
    ("Via", "v"),
    ("Route", ""),
    ("Record-Route", ""),
    ("Max-Forwards", ""),
    ("To", "t"),
    ("Call-ID", "i"),
    ("CSeq", ""),
    ("Contact", "m"),
    ("Content-Type", "c"),
    ("Content-Encoding", "e"),
    ("Content-Length", "l"),
];

/// What a call gets whose result could not be kept, or not in time.
const UNAVAILABLE: u16 = 503;

const EXAMPLE: &str = "{\"Privacy\":\"id\"}";

/// A call to be placed. Every part of it is checked.
pub struct TestCall {
    /// The sandbox application that asks for it, and that it is meant for.
    pub application: ApplicationId,
    /// The caller's number; `None` for a caller who withholds it.
    pub from: Option<E164>,
    /// The number that is called.
    pub to: E164,
    /// Further header fields. Names are tokens, values have no control character; an empty value leaves out a field
    /// that the call would have.
    pub headers: Vec<(String, String)>,
}

impl fmt::Debug for TestCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of header fields may be numbers.
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("TestCall")
            .field("application", &self.application)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("headers", &headers)
            .finish()
    }
}

/// How a call ended.
pub struct Placed {
    /// What was sent.
    pub message: String,
    /// Status code of the final response.
    pub code: u16,
    /// Its reason phrase.
    pub reason: String,
    /// What became of it; `None` where it was refused by its form alone.
    pub judged: Option<Judged>,
}

/// Places a call; `None` when no call can be placed. Runs to its end.
pub type PlaceCall = Box<dyn Fn(TestCall) -> Pin<Box<dyn Future<Output = Option<Placed>> + Send>> + Send + Sync>;

/// What test calls need.
pub(super) struct TestCalls {
    place: PlaceCall,
    rates: DefaultKeyedRateLimiter<u16>,
}

impl TestCalls {
    pub(super) fn new(place: PlaceCall) -> Self {
        Self { place, rates: RateLimiter::keyed(Quota::per_second(PER_SECOND)) }
    }

    fn count(&self, application: ApplicationId) -> Result<(), CreateError> {
        self.rates.check_key(&application.0).map_err(|until| {
            let (name, quota, window) = ("test_calls", PER_SECOND.get(), Duration::from_secs(1));
            let reset = until.wait_time_from(DefaultClock::default().now());
            let exceeded = LimitState { name, quota, window, remaining: 0, reset };
            CreateError::RateLimited { limits: vec![exceeded.clone()], exceeded }
        })
    }
}

/// `POST /v1/test/calls`
pub(super) async fn place(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::TestWrite)?;
    if caller.live {
        return Err(Problem::new(
            Code::SandboxOnly,
            "test calls are for sandbox applications, whose keys begin with rp_test_; a live one is called by phones",
        ));
    }
    let (parts, body) = request.into_parts();
    Parameters::new(&parts.uri).finish(&[])?;
    if parts.headers.contains_key(idempotency::NAME) {
        return Err(Problem::new(
            Code::IdempotencyKeyInvalid,
            "each test call is a call of its own, which cannot be repeated: leave Idempotency-Key out",
        ));
    }
    body::require_json(&parts.headers)?;
    let body = body::read(&shared, caller.application, body).await?;
    let call = parse(&body, &caller)?;
    shared.test_calls.count(caller.application).inspect_err(|_| {
        shared.metrics.test_calls_refused.with_label_values(&["rate_limited"]).inc();
    })?;
    let (from, to) = (call.from, call.to);
    // A task of its own: a client that leaves must not leave a call behind that nobody answers.
    let placed = tokio::spawn((shared.test_calls.place)(call)).await;
    let Ok(Some(placed)) = placed else {
        return Err(Problem::new(Code::Internal, "the call could not be placed"));
    };
    let verification = match placed.judged.and_then(|judged| judged.verification) {
        Some(id) => Some((id, status(&shared, caller.application, id, &placed).await)),
        None => None,
    };
    let shown = Shown::new((from, to), &placed, verification);
    let text = serde_json::to_string(&shown).expect("texts and numbers always serialize");
    Ok(json_response(StatusCode::OK, text))
}

/// How the verification stands now; `None` where it cannot be read.
async fn status(shared: &Shared, application: ApplicationId, id: VerificationId, placed: &Placed) -> Option<Status> {
    if placed.judged.is_some_and(|judged| judged.outcome == CallOutcome::Late) {
        // Its end may still be on its way to the store.
        return Some(Status::Expired);
    }
    shared.verify.verification(application, id).await.ok().flatten().map(|verification| verification.status)
}

/// The answer.
#[derive(Serialize)]
struct Shown<'a> {
    object: &'static str,
    id: Option<String>,
    from: Option<String>,
    to: String,
    response: FinalResponse<'a>,
    outcome: &'static str,
    verification: Option<Named>,
    assurance: Option<Assurance>,
    reasons: Reasons,
    message: &'a str,
}

#[derive(Serialize)]
struct FinalResponse<'a> {
    code: u16,
    reason: &'a str,
}

#[derive(Serialize)]
struct Named {
    id: String,
    status: Option<&'static str>,
}

impl<'a> Shown<'a> {
    fn new(
        (from, to): (Option<E164>, E164),
        placed: &'a Placed,
        verification: Option<(VerificationId, Option<Status>)>,
    ) -> Self {
        let Placed { message, code, reason, judged } = placed;
        Self {
            object: "test_call",
            id: judged.and_then(|judged| judged.record).map(|id| id.to_string()),
            from: from.map(|from| from.to_string()),
            to: to.to_string(),
            response: FinalResponse { code: *code, reason },
            outcome: match judged {
                Some(_) if *code == UNAVAILABLE => "unavailable",
                Some(judged) => judged.outcome.as_str(),
                None => "refused",
            },
            verification: verification
                .map(|(id, status)| Named { id: id.to_string(), status: status.map(Status::as_str) }),
            assurance: judged.map(|judged| judged.assurance),
            reasons: judged.map(|judged| judged.reasons).unwrap_or_default(),
            message,
        }
    }
}

/// Reads the body.
fn parse(body: &[u8], caller: &Caller) -> Result<TestCall, BodyFault> {
    let mut fields = Fields::new(json::object(body).map_err(BodyFault::Malformed)?, "");
    let mut faults = Faults::default();
    let f = &mut faults;
    let from = from(&mut fields, f);
    let to = if fields.has("to") {
        fields.string("to", "+966115000042", f).and_then(|text| number("/to", phone::parse_shape(&text), f))
    } else {
        f.add("/to", "missing", "is missing; the number to call, dial.number of a verification, such as +966115000042");
        None
    };
    let headers = headers(&mut fields, f);
    fields.finish("from, to, headers", f);
    match to {
        Some(to) if faults.is_empty() => Ok(TestCall { application: caller.application, from, to, headers }),
        _ => Err(BodyFault::Invalid(faults.into_vec())),
    }
}

/// The caller; none for one who withholds the number.
fn from(fields: &mut Fields, faults: &mut Faults) -> Option<E164> {
    let text = fields.string("from", phone::EXAMPLE, faults)?;
    if text == "anonymous" { None } else { number("/from", phone::parse(&text, false), faults) }
}

fn number(pointer: &str, read: Result<E164, (&'static str, String)>, faults: &mut Faults) -> Option<E164> {
    read.map_err(|(code, detail)| faults.add(pointer, code, detail)).ok()
}

fn headers(fields: &mut Fields, faults: &mut Faults) -> Vec<(String, String)> {
    let Some(inner) = fields.object("headers", EXAMPLE, faults) else { return Vec::new() };
    let pointers = Fields::new(std::collections::BTreeMap::new(), "/headers");
    let mut read = Vec::new();
    for (name, value) in inner.into_members() {
        let pointer = pointers.pointer(&name);
        if let Some((code, detail)) = name_fault(&name) {
            faults.add(pointer, code, detail);
            continue;
        }
        let values = match value {
            Json::Array(values) => {
                values.into_iter().enumerate().map(|(n, value)| (format!("{pointer}/{n}"), value)).collect()
            }
            one => vec![(pointer, one)],
        };
        for (pointer, value) in values {
            match value {
                Json::Text(text) => match value_fault(&text) {
                    None => read.push((name.clone(), text)),
                    Some((code, detail)) => faults.add(pointer, code, detail),
                },
                Json::Null => read.push((name.clone(), String::new())),
                other => {
                    faults.add(pointer, "wrong_type", expected("a string, or an array of strings", &other, "\"id\""));
                }
            }
        }
    }
    if read.len() > MAX_HEADERS {
        let detail =
            format!("has {} header fields; at most {MAX_HEADERS} are allowed, for example {EXAMPLE}", read.len());
        faults.add("/headers", "too_many", detail);
    }
    read
}

fn name_fault(name: &str) -> Option<(&'static str, String)> {
    // token of RFC 3261 25.1.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Some(("invalid", "is no name of a SIP header field, for example Privacy".to_owned()));
    }
    if name.len() > MAX_NAME {
        return Some(("too_long", format!("has a name of {} bytes; at most {MAX_NAME} are allowed", name.len())));
    }
    let named = |(long, compact): &&(&str, &str)| name.eq_ignore_ascii_case(long) || name.eq_ignore_ascii_case(compact);
    let (long, _) = REFUSED.iter().find(named)?;
    Some(("not_allowed", format!("{long} is written by the call itself; leave it out, for example {EXAMPLE}")))
}

fn value_fault(value: &str) -> Option<(&'static str, String)> {
    if value.len() > MAX_VALUE {
        let detail = format!("has {} bytes; at most {MAX_VALUE} are allowed, for example \"id\"", value.len());
        return Some(("too_long", detail));
    }
    let detail = "has a control character such as CR, LF or NUL; write plain text, for example \"id\"";
    value.chars().any(char::is_control).then(|| ("control_character", detail.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::scope::Scopes;

    fn read(body: &str) -> Result<TestCall, Vec<(String, &'static str)>> {
        let caller = Caller {
            application: ApplicationId(3),
            name: "demo".into(),
            live: false,
            key: "00ff".into(),
            scopes: Scopes::ALL,
        };
        parse(body.as_bytes(), &caller).map_err(|fault| match fault {
            BodyFault::Invalid(faults) => faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect(),
            BodyFault::Malformed(_) => Vec::new(),
        })
    }

    #[test]
    fn a_call_is_read_with_repeated_and_left_out_fields() {
        let call = read(
            r#"{"from":"+447700900123","to":"+966115000042",
                "headers":{"Diversion":["<sip:a@b>","<sip:c@d>"],"P-Asserted-Identity":null,"X-Note":"é"}}"#,
        )
        .unwrap();
        assert_eq!((call.application, call.from.unwrap().to_string()), (ApplicationId(3), "+447700900123".to_owned()));
        let headers: Vec<_> = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected =
            [("Diversion", "<sip:a@b>"), ("Diversion", "<sip:c@d>"), ("P-Asserted-Identity", ""), ("X-Note", "é")];
        assert_eq!(headers, expected);
        for anonymous in ["", r#""from":null,"#, r#""from":"anonymous","#] {
            assert!(read(&format!(r#"{{{anonymous}"to":"+966115000042"}}"#)).unwrap().from.is_none());
        }
    }

    #[test]
    fn debug_shows_no_number() {
        let call = read(
            r#"{"from":"+447700900123","to":"+966115000042","headers":{"P-Asserted-Identity":"<tel:+447700900124>"}}"#,
        );
        let text = format!("{:?}", call.unwrap());
        assert!(!text.contains("7700900") && text.contains("P-Asserted-Identity"), "{text}");
    }

    #[test]
    fn every_field_that_the_call_writes_itself_is_refused_in_both_forms_and_any_case() {
        for (long, compact) in REFUSED {
            for name in [long.to_owned(), long.to_lowercase(), compact.to_owned(), compact.to_uppercase()] {
                if !name.is_empty() {
                    let body = format!(r#"{{"to":"+966115000042","headers":{{"{name}":"x"}}}}"#);
                    assert_eq!(read(&body).unwrap_err(), [(format!("/headers/{name}"), "not_allowed")]);
                }
            }
        }
    }

    #[test]
    fn faults_are_told_apart_all_at_once() {
        let long = "x".repeat(MAX_VALUE + 1);
        let body = format!(
            r#"{{"from":"0500","to":"+966 1","caller":"x","headers":{{"A b":"1","":"1","{name}":"1","B":"1\r\n2","X-C":"1\u0000",
                "D":["ok","{long}",7],"X-E":["\u0085"],"F":{{}}}}}}"#,
            name = "n".repeat(MAX_NAME + 1)
        );
        let mut faults = read(&body).unwrap_err();
        faults.sort_unstable();
        let named = format!("/headers/{}", "n".repeat(MAX_NAME));
        let expected = [
            ("/caller", "unknown_field"),
            ("/from", "no_plus"),
            ("/headers/", "invalid"),
            ("/headers/A b", "invalid"),
            ("/headers/B", "control_character"),
            ("/headers/D/1", "too_long"),
            ("/headers/D/2", "wrong_type"),
            ("/headers/F", "wrong_type"),
            ("/headers/X-C", "control_character"),
            ("/headers/X-E/0", "control_character"),
            (named.as_str(), "too_long"),
            ("/to", "not_digits"),
        ];
        assert_eq!(faults.iter().map(|(at, code)| (at.as_str(), *code)).collect::<Vec<_>>(), expected);
        assert_eq!(read("{}").unwrap_err(), [("/to".to_owned(), "missing")]);
        let many = vec!["\"x\""; MAX_HEADERS + 1].join(",");
        let body = format!(r#"{{"to":"+966115000042","headers":{{"X":[{many}]}}}}"#);
        assert_eq!(read(&body).unwrap_err(), [("/headers".to_owned(), "too_many")]);
    }

    #[test]
    fn an_application_has_its_calls_a_second_and_no_others() {
        let calls = TestCalls::new(Box::new(|_| Box::pin(async { None })));
        let count = |application| (0..50).filter(|_| calls.count(ApplicationId(application)).is_ok()).count();
        assert!((20..50).contains(&count(0)));
        assert!(calls.count(ApplicationId(1)).is_ok());
    }
}
