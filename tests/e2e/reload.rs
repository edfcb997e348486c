//! SIGHUP: what changes at once, what keeps what was begun, and what refuses a file.

use std::fs;

use rusqlite::Connection;
use serde_json::json;

use crate::caller::{Caller, Request};
use crate::config::{Config, NUMBER, ONE_NUMBER, TRUNK, application, key, key_hash, live_key, phone, webhook};
use crate::http::{Api, get};
use crate::node::{Node, Process, serve};
use crate::receiver::Receiver;
use crate::wait::until;

/// A second trunk on loopback, for the address 127.0.0.2 alone.
const SECOND_TRUNK: &str = r#"
[[trunk]]
name    = "second"
peers   = ["127.0.0.2"]
country = "SA"
scope   = "national"
cli     = { sources = ["pai", "from"], asserted_trust = "operator" }
"#;

#[tokio::test]
async fn a_trunk_that_comes_and_goes_is_heard_and_dropped_at_once_and_its_waiting_call_is_answered() {
    let (receiver, mut node) = start().await;
    let stranger = Caller::from("127.0.0.2", node.sip()).await;
    node.config.trunks = format!("{}{SECOND_TRUNK}", TRUNK.replace("127.0.0.0/8", "127.0.0.1"));
    node.config.numbers = number(NUMBER, r#""local", "second""#);
    node.reload_ok().await;
    let by_second = node.api().create(&phone(1)).await;
    assert_eq!(stranger.call(&by_second.phone, NUMBER).await, 486);
    receiver.event(&by_second.id, "verification.verified").await;

    // A call of the trunk waits for its commit while the trunk goes.
    let waiting = node.api().create(&phone(2)).await;
    node.all_delivered().await;
    let lock = lock(&node);
    let invite = Request::invite(&waiting.phone, NUMBER);
    stranger.send(&invite).await;
    waits(&node).await;
    node.config.trunks = TRUNK.replace("127.0.0.0/8", "127.0.0.1");
    node.config.numbers = number(NUMBER, r#""local""#);
    node.reload_ok().await;
    lock.execute_batch("ROLLBACK").unwrap();
    let answer = stranger.receive().await;
    assert_eq!((answer.code(), answer.field("CSeq")), (486, "1 INVITE"));
    assert_eq!(node.api().status(&waiting.id).await, "verified");

    let dropped = dropped_of_strangers(&node).await;
    stranger.send(&Request::new("OPTIONS")).await;
    until("a datagram that is dropped", async || (dropped_of_strangers(&node).await > dropped).then_some(())).await;
    assert_eq!(Caller::new(node.sip()).await.ask(&Request::new("OPTIONS")).await.code(), 200);
    assert!(stranger.received().is_none());
}

#[tokio::test]
async fn a_removed_number_matches_what_is_pending_on_it_and_is_not_handed_out() {
    let (receiver, mut node) = start().await;
    let created = node.api().create(&phone(1)).await;
    assert_eq!(created.number, NUMBER);
    node.config.numbers = number("+966115000077", r#""local""#);
    node.reload_ok().await;
    assert_eq!(node.api().create(&phone(2)).await.number, "+966115000077");
    // Also where the peer writes it the national way: it is still read as ours.
    let mut invite = Request::invite(&created.phone, NUMBER);
    invite.uri = "sip:0115000042@127.0.0.1;user=phone".to_owned();
    assert_eq!(Caller::new(node.sip()).await.place(&invite).await.code(), 486);
    receiver.event(&created.id, "verification.verified").await;
    let unknown = node.metric("ringproof_calls_total", &["unknown_number"]).await;
    assert_eq!(unknown, 0);
}

#[tokio::test]
async fn a_number_that_moves_to_another_trunk_keeps_the_old_one_for_what_was_pending() {
    let (receiver, mut node) = start().await;
    let older = node.api().create(&phone(1)).await;
    node.config.trunks = format!("{}{SECOND_TRUNK}", TRUNK.replace("127.0.0.0/8", "127.0.0.1"));
    node.config.numbers = format!("{}{}", number(NUMBER, r#""second""#), number("+966115000099", r#""local""#));
    node.reload_ok().await;
    let (old, new) = (Caller::new(node.sip()).await, Caller::from("127.0.0.2", node.sip()).await);
    let newer = loop {
        let created = node.api().create(&phone(2)).await;
        if created.number == NUMBER {
            break created;
        }
        assert_eq!(node.api().cancel(&created.id).await.status, 200);
    };
    assert_eq!(old.call(&newer.phone, NUMBER).await, 486);
    assert_eq!(node.api().verification(&newer.id).await["status"], "pending", "the new rules are its rules");
    assert_eq!(old.call(&older.phone, NUMBER).await, 486);
    receiver.event(&older.id, "verification.verified").await;
    assert_eq!(new.call(&newer.phone, NUMBER).await, 486);
    receiver.event(&newer.id, "verification.verified").await;
}

#[tokio::test]
async fn a_removed_key_and_a_removed_applications_keys_are_refused_at_once() {
    let (_receiver, mut node) = start().await;
    let other = Api::new(node.api, &key("other"));
    other.ask(&json!({"phone": phone(1)})).await.is_problem(401, "unauthorized");
    node.config.applications = node.config.applications.replace(&key_hash(&key("demo")), &key_hash(&key("other")));
    node.reload_ok().await;
    node.api().ask(&json!({"phone": phone(1)})).await.is_problem(401, "unauthorized");
    assert_eq!(other.ask(&json!({"phone": phone(1)})).await.status, 201);
}

#[tokio::test]
async fn what_is_pending_for_a_removed_application_is_canceled_with_its_event() {
    let receiver = Receiver::start().await;
    let mut config = Config::new(&receiver.url());
    let shop = application("shop", "", &[webhook(&receiver.url(), "")]);
    config.applications.push_str(&shop);
    config.numbers = format!(
        "{}{}",
        number("+966115000001", r#""local""#) + "applications = [\"demo\"]\n",
        number("+966115000002", r#""local""#) + "applications = [\"shop\"]\n",
    );
    let mut node = Node::start(config).await;
    let (gone, stays) = (node.api_of(&key("shop")).create(&phone(1)).await, node.api().create(&phone(2)).await);
    node.config.applications = node.config.applications.replace(&shop, "");
    node.config.numbers = number("+966115000001", r#""local""#);
    node.reload_ok().await;
    let database = node.database();
    let read = |sql: &str| database.query_row(sql, [&gone.id], |row| row.get::<_, String>(0));
    until("its end", async || {
        (read("SELECT status FROM verifications WHERE id = ?1").unwrap() == "canceled").then_some(())
    })
    .await;
    let last = read("SELECT type FROM events WHERE verification = ?1 ORDER BY seq DESC LIMIT 1");
    assert_eq!(last.unwrap(), "verification.canceled");
    node.api_of(&key("shop")).get(&format!("/v1/verifications/{}", gone.id)).await.is_problem(401, "unauthorized");
    assert_eq!(node.api().status(&stays.id).await, "pending");
    assert_eq!(Caller::new(node.sip()).await.call(&stays.phone, &stays.number).await, 486);
    receiver.event(&stays.id, "verification.verified").await;
    until("nothing pending", async || (node.metric("ringproof_verifications_pending", &[]).await == 0).then_some(()))
        .await;
}

#[tokio::test]
async fn limits_and_defaults_are_those_of_the_new_file_and_what_is_pending_counts() {
    let (_receiver, mut node) = start().await;
    node.config.numbers = crate::config::NUMBERS.to_owned();
    node.config.applications =
        application("demo", "ttl_seconds = 60\nlimits = { pending_per_phone = 1, creates_per_phone = \"2/10m\" }", &[]);
    let before = node.api().create(&phone(1)).await;
    let window = node.api().verification(&before.id).await["expires_at"].clone();
    node.reload_ok().await;
    node.api().ask(&json!({"phone": phone(1)})).await.is_problem(429, "too_many_pending");
    assert_eq!(node.api().verification(&before.id).await["expires_at"], window);
    let created = node.api().create(&phone(2)).await;
    assert_eq!(node.api().cancel(&created.id).await.status, 200);
    node.api().create(&phone(2)).await;
    node.api().ask(&json!({"phone": phone(2)})).await.is_problem(429, "rate_limited");
}

#[tokio::test]
async fn a_bad_file_keeps_the_one_before_and_tells_each_fault_with_its_place() {
    let (_receiver, mut node) = start().await;
    assert_eq!(node.metric("ringproof_config_last_reload_successful", &[]).await, 1);
    let good = node.config.clone();
    for bad in [
        node.config.text(&[]).replace("country = \"SA\"", "country = \"XX\""),
        node.config.text(&[]).replace("[[number]]", "[[number"),
        node.config.text(&[]).replace("local", "\u{1}"),
        String::new(),
    ] {
        let refused = node.reload(&bad, "refused").await;
        assert!(refused.contains("config.toml:") && refused.contains("reload refused"), "{refused}");
    }
    fs::remove_file(node.directory().join("config.toml")).unwrap();
    let before = node.reloads("refused").await;
    node.process.signal("HUP");
    until("a reload without a file", async || (node.reloads("refused").await > before).then_some(())).await;
    assert_eq!(node.metric("ringproof_config_last_reload_successful", &[]).await, 0);
    let created = node.api().create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    node.config = good;
    node.reload_ok().await;
    assert_eq!(node.metric("ringproof_config_last_reload_successful", &[]).await, 1);
}

#[tokio::test]
async fn what_only_a_restart_changes_is_refused_with_its_line_and_nothing_of_the_file_is_in_force() {
    let (_receiver, node) = start().await;
    let text = node.config.text(&[]);
    let line = |text: &str, part: &str| text.lines().position(|line| line.contains(part)).unwrap() + 1;
    for (from, to, key) in [
        ("udp://127.0.0.1:0", "udp://127.0.0.1:5999", "sip.listen"),
        ("workers = 2", "workers = 3", "sip.workers"),
        ("recent_calls = 4096", "recent_calls = 8192", "sip.recent_calls"),
        ("data_dir = \"data\"", "data_dir = \"date\"", "node.data_dir"),
        ("[api]\nlisten = \"127.0.0.1:0\"", "[api]\nlisten = \"127.0.0.1:7\"", "api.listen"),
        ("[admin]\nlisten = \"127.0.0.1:0\"", "[admin]\nlisten = \"127.0.0.1:7\"", "admin.listen"),
    ] {
        assert!(text.contains(from), "{from}");
        // Beside it a change that would be applied.
        let changed = text.replace(from, to).replace(NUMBER, "+966115000001");
        let refused = node.reload(&changed, "refused").await;
        let place = format!("config.toml:{}:", line(&changed, to.lines().last().unwrap()));
        assert!(refused.contains(&place) && refused.contains(&format!("`{key}` was ")), "{key}: {refused}");
        assert!(refused.contains("only a restart changes it"), "{refused}");
    }
    let engine = text.replace("[admin]", "[store]\nengine = \"redis\"\n[admin]");
    assert!(node.reload(&engine, "refused").await.contains("redis"));
    assert_eq!(node.api().create(&phone(1)).await.number, NUMBER);
}

#[tokio::test]
async fn signals_in_a_row_end_with_the_last_file_in_force() {
    let (_receiver, node) = start().await;
    let text = node.config.text(&[]);
    let broken = text.replace("country = \"SA\"", "country = \"XX\"");
    for round in 0..30u32 {
        let file = if round % 2 == 0 { &broken } else { &text };
        node.write_config(&file.replace(NUMBER, &format!("+9661150001{round:02}")));
        node.process.signal("HUP");
    }
    node.write_config(&text.replace(NUMBER, "+966115000200"));
    node.process.signal("HUP");
    let mut caller = 0;
    until("the last file", async || {
        caller += 1;
        (node.api().create(&phone(caller)).await.number == "+966115000200").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_while_a_commit_is_held_waits_for_nothing_and_loses_no_call() {
    let (receiver, mut node) = start().await;
    let created = node.api().create(&phone(1)).await;
    node.all_delivered().await;
    let caller = Caller::new(node.sip()).await;
    let lock = lock(&node);
    caller.send(&Request::invite(&created.phone, &created.number)).await;
    waits(&node).await;
    node.config.numbers = number("+966115000077", r#""local""#);
    node.reload_ok().await;
    assert!(caller.received().is_none(), "the call still waits");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(caller.receive().await.code(), 486);
    receiver.event(&created.id, "verification.verified").await;
}

#[tokio::test]
async fn a_new_sandbox_application_gets_its_key_and_receiver_and_they_outlast_further_reloads() {
    let (_receiver, mut node) = start().await;
    node.config.applications.push_str("\n[[application]]\nname = \"fresh\"\n");
    node.config.numbers = number(NUMBER, r#""local""#)
        + "applications = [\"demo\"]\n"
        + &number("+966115000055", r#""local""#)
        + "applications = [\"fresh\"]\n";
    node.reload_ok().await;
    let shown = until("the new key", async || {
        let shown = node.process.stdout();
        shown.contains("application \"fresh\". It is shown this once").then_some(shown)
    })
    .await;
    let minted: String = shown[shown.rfind("rp_test_").unwrap()..].chars().take(8 + 64).collect();
    for _ in 0..2 {
        assert_eq!(node.api_of(&minted).ask(&json!({"phone": phone(7), "ttl_seconds": 60})).await.status, 201);
        node.config.numbers = node.config.numbers.replace("+966115000055", "+966115000056");
        node.reload_ok().await;
    }
    assert_eq!(node.process.stdout().matches("rp_test_").count(), 1, "it is shown once");
}

#[tokio::test]
async fn another_admin_token_is_asked_for_from_the_next_request_on() {
    let (_receiver, mut node) = start().await;
    let before = node.reloads("ok").await;
    node.config.admin = "token = \"s3cret\"".to_owned();
    node.write_config(&node.config.text(&[]));
    node.process.signal("HUP");
    until("the token", async || (get(node.admin, "/metrics").await.status == 401).then_some(())).await;
    node.config.admin = String::new();
    node.write_config(&node.config.text(&[]));
    node.process.signal("HUP");
    until("no token", async || (get(node.admin, "/metrics").await.status == 200).then_some(())).await;
    // A reload is counted after it took effect.
    until("both counted", async || (node.reloads("ok").await == before + 2).then_some(())).await;
}

#[tokio::test]
async fn a_hangup_while_draining_is_ignored_aloud_and_one_during_the_start_kills_nobody() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config { drain_seconds: 600, ..Config::new(&receiver.url()) }).await;
    node.process.signal("TERM");
    until("the drain", async || (get(node.admin, "/readyz").await.status == 503).then_some(())).await;
    node.process.signal("HUP");
    until("the word", async || node.process.stderr().contains("SIGHUP is ignored").then_some(())).await;
    node.process.signal("TERM");
    assert_eq!(node.process.exit_code().await, Some(0));

    let mut process = Process::spawn(&mut serve(node.directory()));
    until("signal handlers", async || {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        (u64::from_str_radix(&caught, 16).unwrap() & 1 == 1).then_some(())
    })
    .await;
    process.signal("HUP");
    until("ready and reloaded", async || {
        assert!(process.is_running(), "{}", process.stderr());
        (process.stdout().contains("ready\n") && process.stderr().contains("\"message\":\"reloaded\"")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_application_may_become_a_live_one() {
    let (_receiver, mut node) = start().await;
    let hash = key_hash(&live_key("demo"));
    node.config.trunks = TRUNK.replace("scope ", "allow_loopback = true\nscope ");
    node.config.applications = format!("\n[[application]]\nname = \"demo\"\nmode = \"live\"\nkeys = [\"{hash}\"]\n");
    node.reload_ok().await;
    let live = node.api_of(&live_key("demo")).create("+966512345678").await;
    node.api().get(&format!("/v1/verifications/{}", live.id)).await.is_problem(401, "unauthorized");
}

async fn start() -> (Receiver, Node) {
    let receiver = Receiver::start().await;
    let node = Node::start(Config { numbers: ONE_NUMBER.to_owned(), ..Config::new(&receiver.url()) }).await;
    (receiver, node)
}

fn number(number: &str, trunks: &str) -> String {
    format!("\n[[number]]\ne164 = \"{number}\"\ntrunks = [{trunks}]\n")
}

/// Takes the write lock, as a tool of the operator might.
fn lock(node: &Node) -> Connection {
    let database = node.database();
    database.execute_batch("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").unwrap();
    database
}

async fn waits(node: &Node) {
    until("a call that waits", async || (node.metric("ringproof_calls_waiting", &[]).await == 1).then_some(())).await;
}

impl Node {
    fn write_config(&self, text: &str) {
        // Whole or not at all, as an editor does it.
        let directory = self.directory();
        fs::write(directory.join("config.new"), text).unwrap();
        fs::rename(directory.join("config.new"), directory.join("config.toml")).unwrap();
    }

    async fn reloads(&self, result: &str) -> u64 {
        self.metric("ringproof_config_reloads_total", &[&format!("result=\"{result}\"")]).await
    }

    /// Has it read this file, with this result; gives what it logged meanwhile.
    async fn reload(&self, text: &str, result: &str) -> String {
        let (before, logged) = (self.reloads(result).await, self.process.stderr().len());
        self.write_config(text);
        self.process.signal("HUP");
        // What is logged comes by a pipe, later than what is counted.
        let last = if result == "ok" { "\"message\":\"reloaded\"" } else { "reload refused" };
        until(&format!("a reload that is {result}"), async || {
            let done = self.process.stderr()[logged..].contains(last);
            (done && self.reloads(result).await > before).then_some(())
        })
        .await;
        self.process.stderr()[logged..].to_owned()
    }

    /// Has it read its configuration, which is a good one.
    pub async fn reload_ok(&self) {
        self.reload(&self.config.text(&[]), "ok").await;
    }
}

/// Datagrams that the node, or the kernel by its filter, has dropped.
async fn dropped_of_strangers(node: &Node) -> u64 {
    let by_node = node.metric("ringproof_sip_dropped_total", &["unknown_source"]).await;
    by_node + node.metric("ringproof_sip_socket_drops_total", &[]).await
}
