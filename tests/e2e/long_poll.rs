//! Reads that wait: `Prefer: wait` (RFC 7240 4.3).

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use crate::caller::Caller;
use crate::config::{Config, application, key, phone};
use crate::http::Answer;
use crate::node::Node;
use crate::receiver::Receiver;
use crate::sse::Connection;
use crate::wait::until;

const APPLIED: &str = "preference-applied";

#[tokio::test]
async fn a_read_that_waits_is_answered_when_the_call_comes() {
    let scene = Scene::start().await;
    let created = scene.node.api().create(&phone(1)).await;
    let polls: Vec<_> = (0..3).map(|_| scene.poll(&created.id, "wait=55")).collect();
    scene.waiting(3).await;
    assert_eq!(scene.caller.call(&created.phone, &created.number).await, 486);
    for poll in polls {
        let answer = poll.await.unwrap();
        assert_eq!((answer.status, answer.header(APPLIED)), (200, "wait=55"));
        assert_eq!(answer.json()["status"], "verified");
    }
    scene.waiting(0).await;
    // What has ended is answered at once.
    let answer = scene.poll(&created.id, "wait=55").await.unwrap();
    assert_eq!((&answer.json()["status"], answer.header(APPLIED)), (&json!("verified"), "wait=55"));
}

#[tokio::test]
async fn a_read_that_waits_is_answered_as_it_is_when_its_time_is_over() {
    let scene = Scene::start().await;
    let created = scene.node.api().create(&phone(1)).await;
    let began = now();
    let answer = scene.poll(&created.id, "wait=1").await.unwrap();
    assert_eq!((&answer.json()["status"], answer.header(APPLIED)), (&json!("pending"), "wait=1"));
    assert!(began.elapsed() >= Duration::from_millis(990), "{:?}", began.elapsed());
}

#[tokio::test]
async fn long_waits_are_cut_and_what_is_no_wait_is_ignored() {
    let scene = Scene::start().await;
    let created = scene.node.api().create(&phone(1)).await;
    for prefer in ["wait", "wait=", "wait=0", "wait=-3", "wait=soon", "wait=1.5", "respond-async"] {
        let answer = scene.poll(&created.id, prefer).await.unwrap();
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("pending")), "{prefer}");
        assert!(!answer.headers.contains_key(APPLIED), "{prefer}");
    }
    let poll = scene.poll(&created.id, "respond-async, wait=3600; x=1");
    scene.waiting(1).await;
    scene.node.api().cancel(&created.id).await;
    let answer = poll.await.unwrap();
    assert_eq!((&answer.json()["status"], answer.header(APPLIED)), (&json!("canceled"), "wait=60"));
}

#[tokio::test]
async fn nobody_waits_for_what_he_may_not_see() {
    let scene = Scene::start().await;
    let created = scene.node.api().create(&phone(1)).await;
    let path = format!("/v1/verifications/{}", created.id);
    let shop = format!("Bearer {}", key("shop"));
    let headers = [("authorization", shop.as_str()), ("prefer", "wait=55")];
    let mut connection = Connection::http_1(scene.node.api).await;
    connection.ask(Method::GET, &path, &headers).await.whole().await.is_problem(404, "not_found");
    let unknown = "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V";
    scene.poll(unknown, "wait=55").await.unwrap().is_problem(404, "not_found");
    assert_eq!(scene.node.metric("ringproof_long_polls", &[]).await, 0);
}

#[tokio::test]
async fn a_client_that_leaves_makes_room() {
    let scene = Scene::start().await;
    let created = scene.node.api().create(&phone(1)).await;
    let polls: Vec<_> = (0..20).map(|_| scene.poll(&created.id, "wait=60")).collect();
    scene.waiting(20).await;
    for poll in polls {
        poll.abort();
    }
    scene.waiting(0).await;
}

#[tokio::test]
async fn reads_wait_on_one_connection_of_http_2() {
    let scene = Scene::start().await;
    let mut connection = Connection::http_2(scene.node.api).await;
    let created = scene.node.api().create(&phone(1)).await;
    let path = format!("/v1/verifications/{}", created.id);
    let bearer = format!("Bearer {}", key("demo"));
    let headers = [("authorization", bearer.as_str()), ("prefer", "wait=50")];
    let call = async {
        scene.waiting(1).await;
        scene.caller.call(&created.phone, &created.number).await
    };
    let (answer, code) = tokio::join!(connection.ask(Method::GET, &path, &headers), call);
    let answer = answer.whole().await;
    assert_eq!((code, &answer.json()["status"], answer.header(APPLIED)), (486, &json!("verified"), "wait=50"));
}

#[tokio::test]
async fn reads_wait_through_a_drain_and_are_answered_as_it_is_at_the_stop() {
    let mut scene = Scene::start().await;
    let created = scene.node.api().create(&phone(1)).await;
    let polls: Vec<_> = (0..30).map(|_| scene.poll(&created.id, "wait=60")).collect();
    scene.waiting(30).await;
    let began = now();
    scene.node.process.signal("TERM");
    let draining = async || (scene.node.api().ask(&json!({"phone": phone(2)})).await.status == 503).then_some(());
    until("a node that drains", draining).await;
    assert!(polls.iter().all(|poll| !poll.is_finished()), "the drain answers nobody");
    scene.node.process.signal("TERM");
    for poll in polls {
        let answer = poll.await.unwrap();
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("pending")));
    }
    assert_eq!(scene.node.process.exit_code().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "the stop waited for reads");
}

#[expect(clippy::disallowed_methods, reason = "how long something took is what is tested")]
fn now() -> Instant {
    Instant::now()
}

struct Scene {
    node: Node,
    caller: Caller,
}

impl Scene {
    async fn start() -> Self {
        let receiver = Receiver::start().await;
        let config = Config::new(&receiver.url());
        let applications = config.applications.clone() + &application("shop", "", &[]);
        let numbers = "\n[[number]]\nrange = \"+966115000000/100\"\ntrunks = [\"local\"]\n\
                       applications = [\"demo\", \"shop\"]\n";
        let node =
            Node::start(Config { applications, numbers: numbers.to_owned(), drain_seconds: 600, ..config }).await;
        let caller = Caller::new(node.sip()).await;
        Self { node, caller }
    }

    /// A read on a connection of its own that prefers what `prefer` says.
    fn poll(&self, id: &str, prefer: &str) -> tokio::task::JoinHandle<Answer> {
        let (address, path, prefer) = (self.node.api, format!("/v1/verifications/{id}"), prefer.to_owned());
        tokio::spawn(async move {
            let bearer = format!("Bearer {}", key("demo"));
            let headers = [("authorization", bearer.as_str()), ("prefer", prefer.as_str())];
            let mut connection = Connection::http_1(address).await;
            connection.ask(Method::GET, &path, &headers).await.whole().await
        })
    }

    /// Waits until so many reads wait.
    async fn waiting(&self, count: u64) {
        until("reads that wait", async || (self.node.metric("ringproof_long_polls", &[]).await == count).then_some(()))
            .await;
    }
}
