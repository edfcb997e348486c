//! The endpoints of what is kept for others to rely on: receipts, the keys that sign them, erasures.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::Shared;
use super::auth::authenticate;
use super::body;
use super::create::parse_erasure;
use super::problem::{Code, Problem, no_such_verification};
use super::query::Parameters;
use super::scope::Scope;
use super::verifications::{id_in, json};
use crate::verify::erase::Erasure;
use crate::verify::records::ReceiptError;

/// `GET` gives a receipt.
pub(super) const RECEIPT: &str = "/v1/verifications/{id}/receipt";
/// `GET` gives the public keys.
pub(super) const JWKS: &str = "/.well-known/jwks.json";
/// `POST` erases.
pub(super) const ERASURES: &str = "/v1/erasures";

/// How long the keys may be kept by whoever asked; an unknown one is worth asking again.
const KEYS_KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// `GET /v1/verifications/{id}/receipt`
pub(super) async fn receipt(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::VerificationsRead)?;
    let mut parameters = Parameters::new(request.uri());
    let with_phone = parameters.flag("phone");
    parameters.finish(&["phone"])?;
    let id = id_in(request.uri().path()).ok_or_else(no_such_verification)?;
    let receipt = shared.verify.receipt(caller.application, id, with_phone.unwrap_or(false)).await?;
    let text = format!(
        "{{\"object\":\"receipt\",\"verification\":\"{id}\",\"jws\":\"{}\",\"statement\":{}}}",
        receipt.jws, receipt.payload
    );
    Ok(json(StatusCode::OK, text))
}

/// `GET /.well-known/jwks.json`
pub(super) async fn jwks(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    Parameters::new(request.uri()).finish(&[])?;
    let mut response = json(StatusCode::OK, shared.verify.jwks());
    response.headers_mut().insert(CACHE_CONTROL, KEYS_KEPT);
    Ok(response)
}

/// `POST /v1/erasures`
pub(super) async fn erase(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::Erase)?;
    let (parts, body) = request.into_parts();
    Parameters::new(&parts.uri).finish(&[])?;
    body::require_json(&parts.headers)?;
    let body = body::read(&shared, caller.application, body).await?;
    let phone = parse_erasure(&body, caller.live)?;
    let verify = Arc::clone(&shared.verify);
    // As a task of its own: a client that leaves must not leave it half done.
    let erasure = tokio::spawn(async move { verify.erase(caller.application, phone, &caller.key).await }).await;
    let Erasure { erased, log_emptied } = erasure
        .map_err(|_| Problem::new(Code::Internal, "the erasure was begun and its end is not known; ask once more"))??;
    let text = serde_json::json!({
        "object": "erasure",
        "erased": erased,
        "log_emptied": log_emptied,
    });
    Ok(json(StatusCode::OK, text.to_string()))
}

impl From<ReceiptError> for Problem {
    fn from(error: ReceiptError) -> Self {
        let detail = error.to_string();
        match error {
            ReceiptError::NotFound => no_such_verification(),
            ReceiptError::Pending => Self::new(Code::VerificationPending, "a receipt tells how a verification ended"),
            ReceiptError::NotRecorded => Self::new(Code::NotRecorded, detail),
            ReceiptError::PhoneGone => Self::new(Code::PhoneGone, detail),
            ReceiptError::Request(error) => error.into(),
        }
    }
}
