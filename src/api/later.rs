//! Endpoints of later versions, refused by name, so that a client which expects one learns why it fails.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::routing::{MethodFilter, on};

use super::Shared;
use super::auth::authenticate;
use super::problem::{Code, Problem};

struct Endpoint {
    method: &'static str,
    path: &'static str,
    needs_key: bool,
}

const fn keyed(method: &'static str, path: &'static str) -> Endpoint {
    Endpoint { method, path, needs_key: true }
}

const fn open(method: &'static str, path: &'static str) -> Endpoint {
    Endpoint { method, path, needs_key: false }
}

const LATER: [Endpoint; 5] = [
    keyed("POST", "/v1/verifications/{id}/check"),
    keyed("POST", "/v1/verifications/{id}/next"),
    open("POST", "/v1/client/check"),
    open("GET", "/openapi.json"),
    open("GET", "/docs"),
];

/// Adds the refusals beside the endpoints that there are.
pub(super) fn add_routes(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    LATER.iter().fold(router, |router, endpoint| {
        let filter = if endpoint.method == "GET" { MethodFilter::GET } else { MethodFilter::POST };
        router.route(
            endpoint.path,
            on(filter, async move |State(shared): State<Arc<Shared>>, request: Request| {
                refuse(&shared, &request, endpoint)
            }),
        )
    })
}

fn refuse(shared: &Shared, request: &Request, endpoint: &Endpoint) -> Problem {
    let key = authenticate(shared, request);
    match key {
        Err(problem) if endpoint.needs_key => problem,
        _ => Problem::new(
            Code::NotInThisVersion,
            format!("{} {} is not in this version", endpoint.method, endpoint.path),
        ),
    }
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    LATER.iter().map(|endpoint| (endpoint.method, endpoint.path, endpoint.needs_key))
}
