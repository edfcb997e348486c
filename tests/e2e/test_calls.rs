//! `POST /v1/test/calls`, and the test phones that call by themselves.

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::config::{Config, NUMBER, ONE_NUMBER, TRUNK, application, key_hash, live_key, phone, webhook};
use crate::http::{Answer, Api, Created};
use crate::node::Node;
use crate::receiver::{Delivery, Receiver};
use crate::wait::until;

#[tokio::test]
async fn a_test_call_verifies_by_the_way_that_every_call_takes() {
    let scene = Scene::start().await;
    let created = scene.api().create("+447700900123").await;
    let call = scene.call(&json!({"from": created.phone, "to": created.number})).await;
    assert_eq!(call["response"], json!({"code": 486, "reason": "Busy Here"}));
    assert_eq!(call["verification"], json!({"id": created.id, "status": "verified"}));
    assert_eq!((&call["outcome"], &call["assurance"], &call["reasons"]), (&json!("matched"), &json!("B"), &json!([])));
    assert_eq!((&call["from"], &call["to"]), (&json!(created.phone), &json!(created.number)));
    let message = call["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("INVITE sip:{}@", created.number)) && message.contains("\r\nCSeq: 1 INVITE\r\n")
    );
    let event = scene.receiver.event(&created.id, "verification.verified").await.event();
    assert_eq!((&event["data"]["call"]["id"], &event["data"]["call"]["trunk"]), (&call["id"], &json!("sandbox")));
    assert_eq!(scene.node.metric("ringproof_calls_total", &["trunk=\"sandbox\"", "outcome=\"matched\""]).await, 1);

    let again = scene.call(&json!({"from": created.phone, "to": created.number})).await;
    assert_eq!((&again["outcome"], &again["verification"]["id"]), (&json!("repeated"), &json!(created.id)));
}

#[tokio::test]
async fn header_fields_bring_about_every_outcome() {
    let scene = Scene::start().await;
    let b = json!({"minimum_assurance": "B"});
    let (other, number) = ("<sip:+447700900555@c.example>", |n: u32| format!("+4477009005{n:02}"));
    let cases = [
        (json!({"P-Asserted-Identity": ""}), json!({}), "matched", "C", json!([])),
        (json!({"P-Asserted-Identity": null}), b, "assurance_too_low", "C", json!(["assurance_too_low"])),
        (json!({"Privacy": "id"}), json!({}), "matched", "B", json!([])),
        (json!({"Diversion": ["<sip:a@b>", "<sip:c@d>"]}), json!({}), "assurance_too_low", "D", json!(["forwarded"])),
        (json!({"p-asserted-identity": other}), json!({}), "mismatch", "D", json!(["from_pai_mismatch"])),
        (
            json!({"From": "<sip:1@b>", "P-Asserted-Identity": "<sip:1@b>"}),
            json!({}),
            "no_caller",
            "D",
            json!(["cli_invalid"]),
        ),
    ];
    for (n, (headers, fields, outcome, assurance, reasons)) in (0..).zip(cases) {
        let mut wish = fields;
        wish["phone"] = json!(number(n));
        let created = scene.api().create_with(&wish).await;
        let call = scene.call(&json!({"from": created.phone, "to": created.number, "headers": headers})).await;
        let told = (&call["outcome"], &call["assurance"], &call["reasons"]);
        assert_eq!(told, (&json!(outcome), &json!(assurance), &reasons), "{headers}");
        let status = if outcome == "matched" { "verified" } else { "pending" };
        if outcome != "no_caller" {
            assert_eq!(call["verification"], json!({"id": created.id, "status": status}), "{headers}");
        }
        assert_eq!(call["response"]["code"], 486);
    }
    // Where the message itself is at fault, the answer is the one that a peer would get.
    let refused = |headers: Value| json!({"from": phone(1), "to": NUMBER, "headers": headers});
    for (headers, code) in
        [(json!({"Require": "100rel"}), 420), (json!({"From": "<sip:broken"}), 400), (json!({"From": ""}), 400)]
    {
        let call = scene.call(&refused(headers)).await;
        assert_eq!((&call["outcome"], &call["response"]["code"]), (&json!("refused"), &json!(code)));
        assert_eq!(
            (&call["id"], &call["assurance"], &call["verification"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
    }
}

#[tokio::test]
async fn a_caller_may_withhold_the_number() {
    let scene = Scene::start().await;
    let created = scene.api().create(&phone(1)).await;
    for from in [json!(null), json!("anonymous")] {
        let call = scene.call(&json!({"from": from, "to": created.number})).await;
        assert_eq!((&call["outcome"], &call["reasons"]), (&json!("no_caller"), &json!(["cli_withheld"])));
        assert_eq!(call["verification"], json!({"id": created.id, "status": "pending"}));
        assert!(!call["message"].as_str().unwrap().contains("P-Asserted-Identity"));
    }
    let shown = scene.call(&json!({"to": created.number, "headers": {"Privacy": ""}})).await;
    assert!(!shown["message"].as_str().unwrap().contains("Privacy"));
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_unmatched() {
    let scene = Scene::start().await;
    let call = scene.call(&json!({"from": phone(1), "to": NUMBER})).await;
    assert_eq!((&call["outcome"], &call["response"]["code"]), (&json!("unmatched"), &json!(486)));
    assert_eq!((&call["id"], &call["verification"]), (&Value::Null, &Value::Null));
    let nowhere = scene.call(&json!({"from": phone(1), "to": "+442079460000"})).await;
    assert_eq!((&nowhere["outcome"], &nowhere["response"]["code"]), (&json!("unknown_number"), &json!(486)));
}

#[tokio::test]
async fn what_could_be_another_message_is_refused_with_its_place() {
    let scene = Scene::start().await;
    let names = ["Via", "v", "Route", "Max-Forwards", "cseq", "Content-Length", "l", "Call-ID", "To", "Contact", "c"];
    for name in names {
        let problem = scene.refused(&json!({"to": NUMBER, "headers": {name: "x"}})).await;
        assert_eq!(problem["errors"][0]["pointer"], format!("/headers/{name}"));
        assert_eq!(problem["errors"][0]["code"], "not_allowed");
    }
    for value in ["a\rb", "a\nb", "a\r\nVia: x", "a\u{0}b", "\u{1b}[2J", "\u{85}"] {
        let problem = scene.refused(&json!({"to": NUMBER, "headers": {"Subject": ["fine", value]}})).await;
        assert_eq!(problem["errors"][0]["pointer"], "/headers/Subject/1");
        assert_eq!(problem["errors"][0]["code"], "control_character");
    }
    for name in ["A\r\nVia", "A: b", "A b", "é", ""] {
        let problem = scene.refused(&json!({"to": NUMBER, "headers": {name: "x"}})).await;
        assert_eq!(problem["errors"][0]["code"], "invalid", "{name:?}");
    }
    let problem = scene.refused(&json!({"from": "0500000123", "to": "5", "headers": [], "trunk": "local"})).await;
    let mut at: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|fault| fault["pointer"].as_str().unwrap()).collect();
    at.sort_unstable();
    assert_eq!(at, ["/from", "/headers", "/to", "/trunk"]);
    assert_eq!(scene.node.metric("ringproof_sip_requests_total", &["trunk=\"sandbox\""]).await, 0, "none was placed");
}

#[tokio::test]
async fn applications_that_share_numbers_see_nothing_of_each_other() {
    let receiver = Receiver::start().await;
    let everything = webhook(&receiver.url(), "events = [\"verification.*\"]");
    let node = Node::start(Config {
        numbers: format!("{ONE_NUMBER}applications = [\"demo\", \"shop\"]\n"),
        applications: application("demo", "", &[]) + &application("shop", "", &[everything]),
        ..Config::new("")
    })
    .await;
    let (demo, shop) = (node.api(), node.api_of(&crate::config::key("shop")));
    let probes = [
        json!({"from": phone(1), "to": NUMBER}),
        json!({"to": NUMBER}),
        json!({"from": phone(1), "to": NUMBER, "headers": {"P-Asserted-Identity": ""}}),
        json!({"from": phone(1), "to": NUMBER, "headers": {"Diversion": "<sip:a@b>"}}),
        json!({"from": phone(1), "to": NUMBER, "headers": {"P-Asserted-Identity": "<sip:+966500000009@b>"}}),
    ];
    let probe = async || {
        let mut answers = Vec::new();
        for call in &probes {
            let mut answer = test_call(&demo, call).await;
            // Random names of the call.
            answer["message"].take();
            answers.push(answer);
        }
        answers
    };
    let own = test_call(&demo, &json!({"to": NUMBER})).await;
    assert_eq!((&own["outcome"], &own["verification"]), (&json!("no_caller"), &Value::Null));
    let before = probe().await;
    let created = shop.create(&phone(1)).await;
    assert_eq!(probe().await, before, "pending elsewhere");
    assert_eq!(shop.status(&created.id).await, "pending");
    let hint = demo.create(&phone(2)).await;
    let withheld = test_call(&demo, &json!({"to": NUMBER})).await;
    assert_eq!(withheld["verification"]["id"], hint.id, "the only one of its own, whoever else waits on the number");
    assert_eq!(demo.cancel(&hint.id).await.status, 200);
    let call = test_call(&shop, &json!({"from": phone(1), "to": NUMBER})).await;
    assert_eq!((&call["outcome"], &call["verification"]["status"]), (&json!("matched"), &json!("verified")));
    assert_eq!(probe().await, before, "verified elsewhere, and resting");
    until("all events", async || (receiver.about(&created.id).len() == 2).then_some(())).await;
    let kinds: Vec<_> = receiver.about(&created.id).iter().map(Delivery::kind).collect();
    assert!(kinds.iter().all(|kind| kind != "verification.call_received"), "{kinds:?}");
}

#[tokio::test]
async fn a_number_of_another_application_is_unknown() {
    let node = Node::start(Config {
        numbers: format!(
            "{ONE_NUMBER}applications = [\"demo\"]\n{}applications = [\"shop\"]\n",
            ONE_NUMBER.replace(NUMBER, "+966115000043")
        ),
        applications: application("demo", "", &[]) + &application("shop", "", &[]),
        ..Config::new("")
    })
    .await;
    let foreign = test_call(&node.api(), &json!({"from": phone(1), "to": "+966115000043"})).await;
    assert_eq!(foreign["outcome"], "unknown_number");
}

#[tokio::test]
async fn live_applications_place_no_test_calls_and_have_no_test_phones() {
    let live =
        format!("\n[[application]]\nname = \"shop\"\nmode = \"live\"\nkeys = [\"{}\"]\n", key_hash(&live_key("shop")));
    let trunk = TRUNK.replace("country", "allow_loopback = true\ncountry");
    let node = Node::start(Config { trunks: trunk, applications: live, ..Config::new("") }).await;
    let api = node.api_of(&live_key("shop"));
    let created = api.create(&phone(1)).await;
    let problem = post(&api, &json!({"from": phone(1), "to": created.number})).await;
    problem.is_problem(403, "sandbox_only");
    assert_eq!(api.status(&created.id).await, "pending");
}

#[tokio::test]
async fn an_idempotency_key_is_refused() {
    let scene = Scene::start().await;
    let key = [("idempotency-key", "k-1")];
    let answer = scene.api().post_with("/v1/test/calls", &key, &json!({"to": NUMBER})).await;
    answer.is_problem(400, "idempotency_key_invalid");
}

#[tokio::test]
async fn an_application_may_place_twenty_calls_a_second() {
    let scene = Scene::start().await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let api = scene.api();
        asked.spawn(async move { post(&api, &json!({"from": phone(1), "to": NUMBER})).await });
    }
    let answers = asked.join_all().await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!((1..=280).contains(&refused.len()), "{} refused", refused.len());
    refused[0].is_problem(429, "rate_limited");
    assert_eq!(refused[0].header("retry-after"), "1");
    assert_eq!(refused[0].header("ratelimit-policy"), "\"test_calls\";q=20;w=1");
    let counted = scene.node.metric("ringproof_test_calls_refused_total", &["reason=\"rate_limited\""]).await;
    assert_eq!(counted, refused.len() as u64);
}

#[tokio::test]
async fn a_test_call_is_answered_when_its_result_is_durable() {
    let scene = Scene::start().await;
    let created = scene.api().create(&phone(1)).await;
    scene.node.all_delivered().await;
    let lock = lock(&scene.node);
    let (api, body) = (scene.api(), json!({"from": created.phone, "to": created.number}));
    let asked = tokio::spawn(async move { test_call(&api, &body).await });
    until("a call that waits", async || (scene.node.metric("ringproof_calls_waiting", &[]).await == 1).then_some(()))
        .await;
    assert!(!asked.is_finished());
    lock.execute_batch("ROLLBACK").unwrap();
    let call = asked.await.unwrap();
    assert_eq!((&call["response"]["code"], &call["verification"]["status"]), (&json!(486), &json!("verified")));
}

#[tokio::test]
async fn a_test_call_whose_commit_is_undone_gets_503_and_the_next_one_verifies() {
    let scene = Scene::start().await;
    let created = scene.api().create(&phone(1)).await;
    scene.node.all_delivered().await;
    let lock = lock(&scene.node);
    // The lock outlasts the store's patience, which undoes the commit.
    let call = scene.call(&json!({"from": created.phone, "to": created.number})).await;
    assert_eq!((&call["outcome"], &call["response"]["code"]), (&json!("unavailable"), &json!(503)));
    assert_eq!(call["verification"], json!({"id": created.id, "status": "pending"}));
    lock.execute_batch("ROLLBACK").unwrap();
    let call = scene.call(&json!({"from": created.phone, "to": created.number})).await;
    assert_eq!((&call["outcome"], &call["response"]["code"]), (&json!("matched"), &json!(486)));
}

#[tokio::test]
async fn a_draining_node_still_takes_test_calls() {
    let mut scene = Scene::start().await;
    let created = scene.api().create(&phone(1)).await;
    scene.node.process.signal("TERM");
    until("a node that drains", async || {
        (scene.api().ask(&json!({"phone": phone(2)})).await.status == 503).then_some(())
    })
    .await;
    let call = scene.call(&json!({"from": created.phone, "to": created.number})).await;
    assert_eq!(call["outcome"], "matched");
    scene.node.process.signal("TERM");
    assert_eq!(scene.node.process.exit_code().await, Some(0));
}

#[tokio::test]
async fn each_test_phone_plays_its_part() {
    for prefix in ["+44770090090", "+1202555019"] {
        // A node of its own: what waits on a number from before would take the hint of a withheld call away.
        let scene = Scene::start().await;
        let create = async |last: u32| scene.api().create(&format!("{prefix}{last}")).await;
        let called = create(1).await;
        let (withheld, forwarded, mismatch) = (create(2).await, create(3).await, create(4).await);
        let (not_asserted, silent) = (create(5).await, create(6).await);

        let event = scene.receiver.event(&called.id, "verification.verified").await.event();
        assert_eq!((&event["data"]["assurance"], &event["data"]["call"]["trunk"]), (&json!("B"), &json!("sandbox")));
        for (created, reasons) in [
            (&forwarded, json!(["forwarded"])),
            (&mismatch, json!(["from_pai_mismatch"])),
            (&not_asserted, json!(["assurance_too_low"])),
        ] {
            let event = scene.receiver.event(&created.id, "verification.call_received").await.event();
            assert_eq!(event["data"]["call"]["reasons"], reasons);
            assert_eq!(event["data"]["status"], "pending");
        }
        // A withheld call is told to the one who waits on that number alone, and numbers are picked at random.
        if [&forwarded, &mismatch, &not_asserted, &silent, &called].iter().all(|other| other.number != withheld.number)
        {
            let event = scene.receiver.event(&withheld.id, "verification.call_received").await.event();
            assert_eq!(event["data"]["call"]["reasons"], json!(["cli_withheld"]));
        }
        assert_eq!(scene.api().status(&silent.id).await, "pending");

        let refused = async |last: u32| scene.api().ask(&json!({"phone": format!("{prefix}{last}")})).await;
        refused(8).await.is_problem(429, "phone-busy");
        let limited = refused(9).await;
        limited.is_problem(429, "rate_limited");
        assert!(limited.headers.contains_key("retry-after") && limited.headers.contains_key("ratelimit"));
        refused(0).await.is_problem(503, "store_unavailable");
    }
}

#[tokio::test]
async fn a_test_phone_that_calls_late_does_so_also_after_a_restart() {
    let mut scene = Scene::start().await;
    let late = scene.api().create("+447700900907").await;
    let silent = scene.api().create("+447700900906").await;
    for created in [&late, &silent] {
        let shown = scene.api().verification(&created.id).await;
        let second = |field: &str| shown[field].as_str().unwrap()[17..19].to_owned();
        assert_eq!(second("created_at"), second("expires_at"), "a window of a minute: {shown}");
    }
    scene.node.process.kill();
    let sql = "UPDATE verifications SET expires_at = 1000 * (unixepoch() - 1) WHERE status = 'pending'";
    assert_eq!(scene.node.database().execute(sql, []).unwrap(), 2);
    scene.node.restart().await;
    let event = scene.receiver.event(&late.id, "verification.late_call").await.event();
    assert_eq!(
        (&event["data"]["status"], &event["data"]["call"]["reasons"]),
        (&json!("expired"), &json!(["late_call"]))
    );
    scene.receiver.event(&silent.id, "verification.expired").await;
    let call = scene.call(&json!({"from": silent.phone, "to": silent.number})).await;
    assert_eq!(
        (&call["outcome"], &call["verification"]),
        (&json!("late"), &json!({"id": silent.id, "status": "expired"}))
    );
}

#[tokio::test]
async fn calls_from_outside_reach_test_phones_too() {
    let scene = Scene::start().await;
    let Created { id, phone, number } = scene.api().create("+447700900906").await;
    assert_eq!(Caller::new(scene.node.sip()).await.call(&phone, &number).await, 486);
    scene.receiver.event(&id, "verification.verified").await;
}

/// A node whose sandbox application `demo` is told everything.
struct Scene {
    node: Node,
    receiver: Receiver,
}

impl Scene {
    async fn start() -> Self {
        let receiver = Receiver::start().await;
        let everything = webhook(&receiver.url(), "events = [\"verification.*\"]");
        let applications = application("demo", "", &[everything]);
        Self { node: Node::start(Config { applications, ..Config::new("") }).await, receiver }
    }

    fn api(&self) -> Api {
        self.node.api()
    }

    async fn call(&self, body: &Value) -> Value {
        test_call(&self.api(), body).await
    }

    /// The problem of a call whose fields are not valid.
    async fn refused(&self, body: &Value) -> Value {
        post(&self.api(), body).await.is_problem(422, "invalid_fields")
    }
}

async fn post(api: &Api, body: &Value) -> Answer {
    api.post("/v1/test/calls", body).await
}

/// Places a call, which must succeed.
async fn test_call(api: &Api, body: &Value) -> Value {
    let answer = post(api, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let call = answer.json();
    assert_eq!(call["object"], "test_call");
    call
}

/// Takes the write lock, so that commits wait.
fn lock(node: &Node) -> Connection {
    let database = node.database();
    database.execute_batch("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").unwrap();
    database
}
