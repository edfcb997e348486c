//! The end user's browser: its token, its stream, and who may open one.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::caller::{Caller, Request};
use crate::config::{Config, application, key, phone, webhook};
use crate::expiry::end_window;
use crate::http::{Api, Created, get};
use crate::node::Node;
use crate::receiver::Receiver;
use crate::sse::{Connection, open};
use crate::wait::until;

const PAGE: &str = "https://shop.example";

#[tokio::test]
async fn a_stream_tells_the_state_at_once_then_the_change_and_then_ends() {
    let scene = Scene::start().await;
    let (created, url) = scene.create(1).await;
    let mut stream = open(scene.node.api, &url, &[]).await;
    assert_eq!((stream.status, stream.header("content-type")), (200, "text/event-stream"));
    assert_eq!((stream.header("cache-control"), stream.header("x-accel-buffering")), ("no-store", "no"));
    let retry = stream.next().await.unwrap().unwrap().retry.unwrap();
    assert!((1_000..=3_000).contains(&retry), "{retry}");
    let (first, state) = stream.status_event().await;
    let expires_at = &scene.node.api().verification(&created.id).await["expires_at"];
    let shown = |status: &str, reasons: Value| json!({"id": created.id, "status": status, "expires_at": expires_at, "reasons": reasons});
    assert_eq!(state, shown("pending", json!([])));

    // A call that does not verify tells the user what to change, one that does ends it.
    let mut withheld = Request::new("INVITE");
    withheld.uri = format!("sip:{}@127.0.0.1", created.number);
    withheld.from = "<sip:anonymous@anonymous.invalid>;tag=1".to_owned();
    assert_eq!(scene.caller.place(&withheld).await.code(), 486);
    let (second, state) = stream.status_event().await;
    assert_eq!(state, shown("pending", json!(["cli_withheld"])));
    assert_eq!(scene.caller.call(&created.phone, &created.number).await, 486);
    let (third, state) = stream.status_event().await;
    assert_eq!(state, shown("verified", json!(["cli_withheld"])));
    assert!(first != second && second != third && first != third, "{first} {second} {third}");
    stream.ends().await;
}

#[tokio::test]
async fn a_browser_that_comes_back_is_told_what_it_has_not_seen() {
    let scene = Scene::start().await;
    let (created, url) = scene.create(1).await;
    let mut stream = open(scene.node.api, &url, &[]).await;
    let (pending, _) = stream.status_event().await;
    drop(stream);
    // Still pending: nothing is told again.
    let mut stream = open(scene.node.api, &url, &[("last-event-id", &pending)]).await;
    assert!(stream.next().await.unwrap().unwrap().retry.is_some());
    assert_eq!(scene.caller.call(&created.phone, &created.number).await, 486);
    let (verified, state) = stream.status_event().await;
    assert_eq!(state["status"], "verified");
    stream.ends().await;
    // Back again, for the end is not told by the closing of a connection.
    let gone = open(scene.node.api, &url, &[("last-event-id", &verified)]).await;
    assert_eq!(gone.status, 204);
    assert_eq!(gone.whole().await.body.len(), 0);
    // One that missed it, one that has seen nothing, and one with an id that is not ours.
    for id in [Some(pending.as_str()), None, Some("17"), Some("verified-fffffff")] {
        let headers: Vec<_> = id.map(|id| ("last-event-id", id)).into_iter().collect();
        let mut stream = open(scene.node.api, &url, &headers).await;
        assert_eq!(stream.status_event().await, (verified.clone(), state.clone()));
        stream.ends().await;
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_after_the_node_was_killed() {
    let mut scene = Scene::start().await;
    let ((created, url), (other, other_url)) = (scene.create(1).await, scene.create(2).await);
    let mut streams = [open(scene.node.api, &url, &[]).await, open(scene.node.api, &other_url, &[]).await];
    let (pending, _) = streams[0].status_event().await;
    let (other_pending, _) = streams[1].status_event().await;
    assert_eq!(scene.caller.call(&other.phone, &other.number).await, 486);
    scene.node.process.kill();
    scene.node.restart().await;
    let mut stream = open(scene.node.api, &url, &[("last-event-id", &pending)]).await;
    assert!(stream.next().await.unwrap().unwrap().retry.is_some());
    let mut missed = open(scene.node.api, &other_url, &[("last-event-id", &other_pending)]).await;
    assert_eq!(missed.status_event().await.1["status"], "verified");
    missed.ends().await;
    assert_eq!(scene.caller.call(&created.phone, &created.number).await, 486);
    assert_eq!(stream.status_event().await.1["status"], "verified");
    stream.ends().await;
}

#[tokio::test]
async fn every_end_is_told() {
    let mut scene = Scene::start().await;
    let ((canceled, one), (replaced, two)) = (scene.create(1).await, scene.create(2).await);
    let (mut first, mut second) = (open(scene.node.api, &one, &[]).await, open(scene.node.api, &two, &[]).await);
    first.status_event().await;
    second.status_event().await;
    scene.node.api().cancel(&canceled.id).await;
    let (_, state) = first.status_event().await;
    assert_eq!((&state["status"], &state["reasons"]), (&json!("canceled"), &json!(["client_canceled"])));
    first.ends().await;
    scene.node.api().create_with(&json!({"phone": phone(2), "replaces": replaced.id})).await;
    let (_, state) = second.status_event().await;
    assert_eq!((&state["status"], &state["reasons"]), (&json!("canceled"), &json!(["superseded"])));
    second.ends().await;
    // A window that ends at the start, perhaps before the stream is open.
    let (expired, url) = scene.create(3).await;
    scene.node.process.kill();
    end_window(&scene.node, &expired, 1);
    scene.node.restart().await;
    let mut stream = open(scene.node.api, &url, &[]).await;
    let mut status = stream.status_event().await.1["status"].clone();
    if status == "pending" {
        status = stream.status_event().await.1["status"].clone();
    }
    assert_eq!(status, "expired");
    stream.ends().await;
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives() {
    let scene = Scene::start().await;
    let (_, url) = scene.create(1).await;
    let mut stream = open(scene.node.api, &url, &[]).await;
    stream.status_event().await;
    let began = now();
    assert!(stream.next().await.unwrap().unwrap().comment);
    let waited = began.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(30)).contains(&waited), "{waited:?}");
}

#[tokio::test]
async fn what_is_no_living_token_is_refused_for_good() {
    let mut scene = Scene::start().await;
    let (created, url) = scene.create(1).await;
    let token = token_of(&url);
    let mut wrong = token.to_owned().into_bytes();
    wrong[40] ^= 1;
    let wrong = String::from_utf8(wrong).unwrap();
    for query in [String::new(), "?token=".to_owned(), format!("?token={wrong}"), format!("?token={}", key("demo"))] {
        let answer = open(scene.node.api, &format!("/v1/client/events{query}"), &[]).await.whole().await;
        answer.is_problem(401, "client_token_invalid");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
        assert!(!answer.text().contains("rp_test_") && !answer.text().contains(&wrong), "{}", answer.text());
    }
    for query in [format!("?token={token}&x=1"), format!("?token={token}&token={token}")] {
        let answer = open(scene.node.api, &format!("/v1/client/events{query}"), &[]).await.whole().await;
        answer.is_problem(422, "invalid_fields");
        assert!(!answer.text().contains(token));
    }
    // A token opens nothing else.
    let with_token = Api::new(scene.node.api, token);
    with_token.get(&format!("/v1/verifications/{}", created.id)).await.is_problem(401, "unauthorized");
    with_token.ask(&json!({"phone": phone(2)})).await.is_problem(401, "unauthorized");

    // It dies a minute after the window.
    scene.node.process.kill();
    end_window(&scene.node, &created, 50);
    scene.node.restart().await;
    assert_eq!(open(scene.node.api, &url, &[]).await.status, 200);
    assert!(scene.node.api().verification(&created.id).await["client"].is_object());
    scene.node.process.kill();
    let sql = "UPDATE verifications SET expires_at = expires_at - 10000";
    assert_eq!(scene.node.database().execute(sql, []).unwrap(), 1);
    scene.node.restart().await;
    let dead = open(scene.node.api, &url, &[("origin", PAGE)]).await.whole().await;
    dead.is_problem(410, "client_token_expired");
    assert_eq!(dead.header("access-control-allow-origin"), PAGE, "the page may read why");
    assert!(scene.node.api().verification(&created.id).await.get("client").is_none());
}

#[tokio::test]
async fn pages_of_listed_origins_alone_may_follow() {
    let scene = Scene::start().await;
    let (_, url) = scene.create(1).await;
    let stream = open(scene.node.api, &url, &[("origin", PAGE)]).await;
    assert_eq!((stream.status, stream.header("access-control-allow-origin")), (200, PAGE));
    assert_eq!(stream.header("vary"), "Origin");
    assert_eq!(stream.header("access-control-allow-credentials"), "");
    for origin in ["https://evil.example", "http://shop.example", "https://shop.example:444", "null"] {
        let answer = open(scene.node.api, &url, &[("origin", origin)]).await.whole().await;
        answer.is_problem(403, "origin_not_allowed");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        let preflight = preflight(&scene.node, &url, origin).await;
        preflight.is_problem(403, "origin_not_allowed");
    }
    let answer = preflight(&scene.node, &url, PAGE).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, PAGE));
    assert_eq!(answer.header("access-control-allow-methods"), "GET");
    let allowed = answer.header("access-control-allow-headers").to_ascii_lowercase();
    assert!(allowed.contains("last-event-id") && allowed.contains("cache-control"), "{allowed}");
    // An application's origins are its own.
    let shop = scene.node.api_of(&key("shop")).ask(&json!({"phone": phone(2)})).await.json();
    let answer = open(scene.node.api, shop["client"]["events_url"].as_str().unwrap(), &[("origin", PAGE)]).await;
    assert_eq!(answer.status, 403);
    // Nothing but these endpoints speaks to pages.
    let answer = scene.node.api().get("/v1/verifications/ver_1").await;
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
}

#[tokio::test]
async fn a_verification_has_eight_streams_and_one_that_closes_makes_room() {
    let scene = Scene::start().await;
    let (_, url) = scene.create(1).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = open(scene.node.api, &url, &[]).await;
        stream.status_event().await;
        streams.push(stream);
    }
    assert_eq!(scene.node.metric("ringproof_client_streams", &[]).await, 8);
    let ninth = open(scene.node.api, &url, &[]).await.whole().await;
    ninth.is_problem(429, "too_many_streams");
    assert_eq!(ninth.header("retry-after"), "1");
    assert_eq!(scene.node.metric("ringproof_waits_refused_total", &["client_stream", "verification"]).await, 1);
    assert_eq!(open(scene.node.api, &scene.create(2).await.1, &[]).await.status, 200);
    streams.pop();
    until("a place that is free", async || (open(scene.node.api, &url, &[]).await.status == 200).then_some(())).await;
    streams.clear();
    until("streams that are gone", async || {
        (scene.node.metric("ringproof_client_streams", &[]).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn streams_go_on_through_a_drain_and_end_at_the_stop() {
    let mut scene = Scene::start().await;
    let (created, url) = scene.create(1).await;
    let mut verifying = open(scene.node.api, &url, &[]).await;
    verifying.status_event().await;
    let mut waiting = Vec::new();
    for index in 2..40 {
        let mut stream = open(scene.node.api, &scene.create(index).await.1, &[]).await;
        stream.status_event().await;
        waiting.push(stream);
    }
    scene.drain().await;
    assert_eq!(scene.caller.call(&created.phone, &created.number).await, 486);
    assert_eq!(verifying.status_event().await.1["status"], "verified");
    verifying.ends().await;
    let began = now();
    scene.node.process.signal("TERM");
    for mut stream in waiting {
        assert_eq!(stream.next().await.unwrap(), None, "a clean end without the event, so that the browser comes back");
    }
    assert_eq!(scene.node.process.exit_code().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "the stop waited for streams");
}

#[tokio::test]
async fn many_streams_share_a_connection_of_http_2() {
    let mut scene = Scene::start().await;
    let mut connection = Connection::http_2(scene.node.api).await;
    let mut streams = Vec::new();
    for index in 0..20 {
        let (created, url) = scene.create(index).await;
        let mut stream = connection.ask(Method::GET, &url, &[]).await;
        assert_eq!(stream.status, 200);
        stream.status_event().await;
        streams.push((created, stream));
    }
    for (created, mut stream) in streams.drain(10..) {
        assert_eq!(scene.caller.call(&created.phone, &created.number).await, 486);
        let (id, state) = stream.status_event().await;
        assert_eq!((&state["id"], &state["status"]), (&json!(created.id), &json!("verified")));
        stream.ends().await;
        let gone = connection.ask(Method::GET, &scene.url(&created).await, &[("last-event-id", &id)]).await;
        assert_eq!(gone.status, 204);
    }
    // One that is let go frees its place while the connection stays.
    streams.pop();
    until("nine", async || (scene.node.metric("ringproof_client_streams", &[]).await == 9).then_some(())).await;
    scene.drain().await;
    scene.node.process.signal("TERM");
    for (_, mut stream) in streams {
        assert_eq!(stream.next().await.unwrap(), None);
    }
    assert_eq!(scene.node.process.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_stream_that_nobody_reads_gives_its_place_back_when_its_token_dies() {
    let scene = Scene::start().await;
    let (created, url) = scene.create(1).await;
    end_window(&scene.node, &created, 50);
    let mut connection = Connection::http_2_with_window(scene.node.api, 0).await;
    let unread = connection.ask(Method::GET, &url, &[]).await;
    assert_eq!(unread.status, 200);
    let open = async || scene.node.metric("ringproof_client_streams", &[]).await;
    assert_eq!(open().await, 1);
    until("the place comes back", async || (open().await == 0).then_some(())).await;
    drop(unread);
}

#[tokio::test]
async fn the_client_is_told_to_its_application_alone() {
    let scene = Scene::start().await;
    let body = json!({"phone": phone(1), "reference": "r-1"});
    let first = scene.node.api().post_with("/v1/verifications", &[("idempotency-key", "k")], &body).await;
    let again = scene.node.api().post_with("/v1/verifications", &[("idempotency-key", "k")], &body).await;
    assert_eq!((first.status, first.text()), (again.status, again.text()));
    assert_eq!(again.header("idempotency-replayed"), "true");
    let created = first.json();
    let client = &created["client"];
    let token = client["token"].as_str().unwrap();
    assert!(token.starts_with("rpc_"));
    assert_eq!(client["events_url"], format!("/v1/client/events?token={token}"));
    let id = created["id"].as_str().unwrap();
    assert_eq!(&scene.node.api().verification(id).await["client"], client);
    let mut stream = open(scene.node.api, client["events_url"].as_str().unwrap(), &[]).await;
    let shown = stream.event().await.data;
    for hidden in [&phone(1)[1..], "966115", "r-1", token] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    let number = created["dial"]["number"].as_str().unwrap();
    assert_eq!(scene.caller.call(&phone(1), number).await, 486);
    scene.receiver.event(id, "verification.verified").await;
    for delivery in scene.receiver.about(id) {
        assert!(!String::from_utf8_lossy(&delivery.body).contains("rpc_"));
    }
}

async fn preflight(node: &Node, url: &str, origin: &str) -> crate::http::Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "cache-control,last-event-id"),
    ];
    Connection::http_1(node.api).await.ask(Method::OPTIONS, url, &headers).await.whole().await
}

fn token_of(url: &str) -> &str {
    url.split_once("token=").unwrap().1
}

#[expect(clippy::disallowed_methods, reason = "how long something took is what is tested")]
fn now() -> Instant {
    Instant::now()
}

struct Scene {
    node: Node,
    receiver: Receiver,
    caller: Caller,
}

impl Scene {
    async fn start() -> Self {
        let receiver = Receiver::start().await;
        let all = webhook(&receiver.url(), "events = [\"verification.*\"]");
        let origins = format!("allowed_origins = [\"http://localhost:3000\", \"{PAGE}\"]");
        let applications = application("demo", &origins, &[all]) + &application("shop", "", &[]);
        let numbers = "\n[[number]]\nrange = \"+966115000000/100\"\ntrunks = [\"local\"]\napplications = [\"demo\"]\n\
                       [[number]]\nrange = \"+966115000200/100\"\ntrunks = [\"local\"]\napplications = [\"shop\"]\n";
        let config = Config { applications, numbers: numbers.to_owned(), drain_seconds: 600, ..Config::new("") };
        let node = Node::start(config).await;
        let caller = Caller::new(node.sip()).await;
        Self { node, receiver, caller }
    }

    /// Begins to stop; a second signal ends the wait.
    async fn drain(&self) {
        self.node.process.signal("TERM");
        until("a node that drains", async || (get(self.node.admin, "/readyz").await.status == 503).then_some(())).await;
    }

    /// A verification, and where its browser listens.
    async fn create(&self, index: u32) -> (Created, String) {
        let created = self.node.api().create(&phone(index)).await;
        let url = self.url(&created).await;
        (created, url)
    }

    async fn url(&self, created: &Created) -> String {
        self.node.api().verification(&created.id).await["client"]["events_url"].as_str().unwrap().to_owned()
    }
}
