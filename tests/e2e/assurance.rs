//! Calls that name a verification's pair, or nearly, and what they prove.

use serde_json::{Value, json};

use crate::caller::{Caller, Request};
use crate::config::{Config, NUMBER, NUMBERS, ONE_NUMBER, TRUNK, application, phone, webhook};
use crate::http::Created;
use crate::node::Node;
use crate::receiver::Receiver;
use crate::wait::until;

const OTHER: &str = "+966501111111";

#[tokio::test]
async fn f01_from_alone_does_not_reach_b_and_only_those_who_ask_are_told() {
    let scene = Scene::start(TRUNK).await;
    let created = scene.pending(json!({"minimum_assurance": "B"})).await;
    scene.call(&Request::invite_from_only(&created.phone, &created.number)).await;
    let call = scene.stays_pending(&created, &["assurance_too_low"]).await;
    assert_eq!((&call["assurance"], &call["caller_source"]), (&json!("C"), &json!("from")));
    scene.verifies(&created, &Request::invite(&created.phone, &created.number), "B", &["assurance_too_low"]).await;
}

#[tokio::test]
async fn f01_from_alone_verifies_where_c_is_enough() {
    let scene = Scene::start(TRUNK).await;
    let created = scene.pending(json!({})).await;
    let call = scene.verifies(&created, &Request::invite_from_only(&created.phone, &created.number), "C", &[]).await;
    assert_eq!(call["caller_source"], "from");
}

#[tokio::test]
async fn d01_d02_v04_a_forwarded_call_verifies_nobody() {
    for field in [
        "Diversion: <sip:+966500000777@c>;reason=unconditional;counter=1",
        "History-Info: <sip:+966500000777@c;cause=302>;index=1, <sip:+966115000042@us>;index=1.1",
    ] {
        let scene = Scene::start(TRUNK).await;
        let created = scene.pending(json!({})).await;
        scene.call(&Request::invite(&created.phone, &created.number).with(field)).await;
        let call = scene.stays_pending(&created, &["forwarded"]).await;
        assert_eq!(call["assurance"], "D");
    }
}

#[tokio::test]
async fn d01_a_trunk_that_only_flags_forwarding_lets_it_reach_c() {
    let scene = Scene::start(&format!("{TRUNK}forwarded = \"flag\"\n")).await;
    let created = scene.pending(json!({})).await;
    let invite = Request::invite(&created.phone, &created.number).with("Diversion: <sip:+966500000777@c>");
    scene.verifies(&created, &invite, "C", &["forwarded"]).await;
}

#[tokio::test]
async fn f06_f07_two_asserted_numbers_are_none() {
    for second in ["<tel:+966501111111>", "<sip:+966501111111@c>, <tel:+966502222222>"] {
        let scene = Scene::start(TRUNK).await;
        let created = scene.pending(json!({})).await;
        let field = format!("P-Asserted-Identity: {second}");
        scene.call(&Request::invite(&created.phone, &created.number).with(&field)).await;
        let call = scene.stays_pending(&created, &["cli_ambiguous"]).await;
        assert_eq!(call["caller_source"], Value::Null);
    }
}

#[tokio::test]
async fn f04_one_number_in_its_two_forms_is_one_number() {
    let scene = Scene::start(TRUNK).await;
    let created = scene.pending(json!({})).await;
    let field = format!("P-Asserted-Identity: <tel:{}>", created.phone);
    scene.verifies(&created, &Request::invite(&created.phone, &created.number).with(&field), "B", &[]).await;
}

#[tokio::test]
async fn f13_saudi_numbers_verify_in_every_way_they_are_written() {
    let scene = Scene::start(TRUNK).await;
    for (index, form) in [
        "sip:0{}@c",
        "sip:966{}@c",
        "sip:00966{}@c",
        "sip:+966{}@c;user=phone",
        "tel:0{};phone-context=+966",
        "sip:%2B966{}@c",
        "sip:+966{}:secret@c",
    ]
    .into_iter()
    .enumerate()
    {
        let created = scene.pending_for(&phone(u32::try_from(index).unwrap()), json!({})).await;
        let national = created.phone.strip_prefix("+966").unwrap();
        let invite = Request::invite_from_only(&created.phone, &created.number)
            .with(&format!("P-Asserted-Identity: <{}>", form.replace("{}", national)));
        scene.verifies(&created, &invite, "B", &[]).await;
    }
}

#[tokio::test]
async fn f22_f23_a_restricted_number_verifies_and_shows_nowhere() {
    let mut scene = Scene::start(TRUNK).await;
    for (index, privacy) in ["id", "user;id;critical", "header"].into_iter().enumerate() {
        let created = scene.pending_for(&phone(4_321_987 + u32::try_from(index).unwrap()), json!({})).await;
        let mut invite = Request::new("INVITE")
            .with(&format!("P-Asserted-Identity: <tel:{}>", created.phone))
            .with(&format!("Privacy: {privacy}"));
        invite.from = format!("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag={index}");
        invite.uri = format!("sip:{}@127.0.0.1", created.number);
        let call = scene.verifies(&created, &invite, "B", &[]).await;
        let national = created.phone.strip_prefix("+966").unwrap();
        assert!(!call.to_string().contains(national), "{call}");
        scene.node.process.kill();
        let callers: Vec<Option<i64>> = {
            let database = scene.node.database();
            let mut calls = database.prepare("SELECT caller FROM calls WHERE verification = ?1").unwrap();
            calls.query_map([&created.id], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(callers, [None]);
        let printed = scene.node.printed();
        assert!(!printed.contains(national), "{printed}");
        scene.node.restart().await;
    }
}

#[tokio::test]
async fn f22_a_trunk_may_refuse_restricted_numbers() {
    let scene = Scene::start(&TRUNK.replace("asserted_trust", "restricted = \"refuse\", asserted_trust")).await;
    let created = scene.pending(json!({})).await;
    scene.call(&Request::invite(&created.phone, &created.number).with("Privacy: id")).await;
    scene.stays_pending(&created, &["cli_withheld"]).await;
}

#[tokio::test]
async fn f24_f25_a_withheld_number_is_a_hint_to_the_one_who_waits_on_that_number() {
    for from in ["\"Anonymous\" <sip:anonymous@anonymous.invalid>", "<sip:127.0.0.1>", "<sip:unknown@127.0.0.1>"] {
        let scene = Scene::start(TRUNK).await;
        let created = scene.pending(json!({})).await;
        let mut invite = Request::new("INVITE");
        invite.uri = format!("sip:{}@127.0.0.1", created.number);
        invite.from = format!("{from};tag=1");
        scene.call(&invite).await;
        scene.stays_pending(&created, &["cli_withheld"]).await;
    }
}

#[tokio::test]
async fn f14_a_number_that_no_plan_has_is_a_hint_too() {
    let scene = Scene::start(TRUNK).await;
    let created = scene.pending(json!({})).await;
    scene.call(&Request::invite_from_only("+0500000123", &created.number)).await;
    scene.stays_pending(&created, &["cli_invalid"]).await;
}

#[tokio::test]
async fn f30_the_asserted_number_counts_and_another_presented_one_is_noted() {
    let scene = Scene::start(TRUNK).await;
    let created = scene.pending(json!({})).await;
    let mut invite = Request::invite(&created.phone, &created.number);
    invite.set_from(OTHER);
    scene.verifies(&created, &invite, "B", &["presented_differs"]).await;
}

#[tokio::test]
async fn f31_a_forged_from_does_not_verify_its_victim() {
    let scene = Scene::start(TRUNK).await;
    let created = scene.pending(json!({})).await;
    let mut invite = Request::invite(OTHER, &created.number);
    invite.set_from(&created.phone);
    scene.call(&invite).await;
    scene.stays_pending(&created, &["from_pai_mismatch"]).await;
    // That call is not used up: the victim's own still counts.
    let own = Request::invite(&created.phone, &created.number);
    scene.verifies(&created, &own, "B", &["from_pai_mismatch"]).await;
}

#[tokio::test]
async fn f32_what_a_customer_asserts_is_worth_c() {
    let scene = Scene::start(&TRUNK.replace("\"operator\"", "\"customer\"")).await;
    let created = scene.pending(json!({})).await;
    scene.verifies(&created, &Request::invite(&created.phone, &created.number), "C", &[]).await;
}

#[tokio::test]
async fn an_operator_of_the_number_itself_is_worth_a_and_a_mixed_trunk_c() {
    for (trunk, level) in
        [(TRUNK.replace("\"operator\"", "\"on-net\""), "A"), (TRUNK.replace("\"national\"", "\"mixed\""), "C")]
    {
        let scene = Scene::start(&trunk).await;
        let created = scene.pending(json!({})).await;
        scene.verifies(&created, &Request::invite(&created.phone, &created.number), level, &[]).await;
    }
}

#[tokio::test]
async fn f50_a_caller_of_the_country_over_an_international_trunk_is_worth_c() {
    let scene = Scene::start(&TRUNK.replace("\"national\"", "\"international\"")).await;
    let created = scene.pending(json!({})).await;
    let invite = Request::invite(&created.phone, &created.number);
    scene.verifies(&created, &invite, "C", &["roaming_suspected"]).await;
}

#[tokio::test]
async fn f48_our_own_number_as_a_caller_verifies_nobody() {
    let scene = Scene::start(TRUNK).await;
    let created = scene.pending(json!({})).await;
    scene.call(&Request::invite(&created.number, &created.number)).await;
    scene.stays_pending(&created, &["own_number"]).await;
}

#[tokio::test]
async fn a_call_over_another_trunk_than_the_numbers_own_does_not_count() {
    let far = TRUNK.replace("\"local\"", "\"far\"").replace("\"127.0.0.0/8\", \"::1\"", "\"127.0.0.7\"");
    let far_number = "[[number]]\ne164 = \"+966115000500\"\ntrunks = [\"far\"]\n";
    let scene = Scene::with(&format!("{TRUNK}{far}"), &format!("{ONE_NUMBER}{far_number}")).await;
    let created = scene.pending(json!({})).await;
    let far = Caller::from("127.0.0.7", scene.node.sip()).await;
    // Either number may have been chosen.
    let (right, wrong, name) =
        if created.number == NUMBER { (&scene.caller, &far, "far") } else { (&far, &scene.caller, "local") };
    assert_eq!(wrong.call(&created.phone, &created.number).await, 486);
    let call = scene.stays_pending(&created, &["wrong_trunk"]).await;
    assert_eq!(call["trunk"], name);
    assert_eq!(right.call(&created.phone, &created.number).await, 486);
    assert_eq!(scene.node.api().status(&created.id).await, "verified");
}

#[tokio::test]
async fn a_request_may_ask_for_more_proof_and_not_for_less() {
    let receiver = Receiver::start().await;
    let applications = application("demo", "minimum_assurance = \"B\"", &[webhook(&receiver.url(), "")]);
    let node = Node::start(Config { applications, ..Config::new("") }).await;
    let problem = node.api().ask(&json!({"phone": phone(1), "minimum_assurance": "C"})).await;
    assert_eq!(problem.is_problem(422, "invalid_fields")["errors"][0]["pointer"], "/minimum_assurance");
    let created = node.api().create_with(&json!({"phone": phone(1), "minimum_assurance": "A"})).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    until("the reason", async || {
        (node.api().verification(&created.id).await["reasons"] == json!(["assurance_too_low"])).then_some(())
    })
    .await;
    assert_eq!(node.api().status(&created.id).await, "pending");
}

/// A node with one number to call, a receiver of the default events and one of all.
struct Scene {
    node: Node,
    usual: Receiver,
    curious: Receiver,
    caller: Caller,
}

impl Scene {
    async fn start(trunks: &str) -> Self {
        Self::with(trunks, NUMBERS).await
    }

    async fn with(trunks: &str, numbers: &str) -> Self {
        let (usual, curious) = (Receiver::start().await, Receiver::start().await);
        let webhooks = [webhook(&usual.url(), ""), webhook(&curious.url(), "events = [\"verification.*\"]")];
        let applications = application("demo", "", &webhooks);
        let (trunks, numbers) = (trunks.to_owned(), numbers.to_owned());
        let node = Node::start(Config { trunks, numbers, applications, ..Config::new("") }).await;
        let caller = Caller::new(node.sip()).await;
        Self { node, usual, curious, caller }
    }

    async fn pending(&self, fields: Value) -> Created {
        self.pending_for(&phone(123), fields).await
    }

    async fn pending_for(&self, phone: &str, mut fields: Value) -> Created {
        fields["phone"] = json!(phone);
        self.node.api().create_with(&fields).await
    }

    async fn call(&self, invite: &Request) {
        assert_eq!(self.caller.place(invite).await.code(), 486);
    }

    /// The call that was just placed left these reasons and nothing more; gives what was told of it.
    async fn stays_pending(&self, created: &Created, reasons: &[&str]) -> Value {
        let event = self.curious.event(&created.id, "verification.call_received").await.event();
        let now = self.node.api().verification(&created.id).await;
        assert_eq!((&now["status"], &now["assurance"]), (&json!("pending"), &Value::Null));
        assert_eq!(now["reasons"], json!(reasons));
        assert_eq!(event["data"]["call"]["reasons"], json!(reasons));
        self.node.all_delivered().await;
        assert!(self.usual.about(&created.id).is_empty(), "the usual subscription is of terminal events");
        event["data"]["call"].clone()
    }

    /// The call verifies with this level; gives what was told of it.
    async fn verifies(&self, created: &Created, invite: &Request, level: &str, reasons: &[&str]) -> Value {
        self.call(invite).await;
        let now = self.node.api().verification(&created.id).await;
        assert_eq!((&now["status"], &now["assurance"]), (&json!("verified"), &json!(level)), "{now}");
        assert_eq!(now["reasons"], json!(reasons));
        let event = self.usual.event(&created.id, "verification.verified").await.event();
        assert_eq!(event["data"]["reasons"], json!(reasons));
        event["data"]["call"].clone()
    }
}
