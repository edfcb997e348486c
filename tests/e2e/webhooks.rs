//! Endpoints that are slow, gone or not allowed: each harms itself alone.

use std::net::ToSocketAddrs;

use serde_json::Value;

use crate::caller::Caller;
use crate::config::{Config, NUMBERS, TRUNK, application, key_hash, live_key, phone, webhook};
use crate::node::Node;
use crate::receiver::{Receiver, Reply};
use crate::wait::until;

#[tokio::test]
async fn a_hanging_endpoint_holds_up_no_other() {
    let (sick, healthy) = (Receiver::start().await, Receiver::start().await);
    sick.usually(Reply::Hang);
    let webhooks = [webhook(&sick.url(), ""), webhook(&healthy.url(), "")];
    let node = Node::start(Config { applications: application("demo", "", &webhooks), ..Config::new("") }).await;
    let caller = Caller::new(node.sip()).await;
    // More than the sick one may have in flight at once.
    for index in 0..100 {
        let created = node.api().create(&phone(index)).await;
        assert_eq!(caller.call(&created.phone, &created.number).await, 486);
        healthy.event(&created.id, "verification.verified").await;
    }
    until("attempts that hang", async || (sick.deliveries().len() >= 10).then_some(())).await;
    assert_eq!(healthy.deliveries().len(), 100);
    until("the sick one's backlog alone", async || {
        (node.metric("ringproof_webhook_backlog", &[]).await == 100).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_failure_is_tried_again_with_the_same_id_and_a_redirect_is_one() {
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    let node = Node::start(Config::new(&receiver.url())).await;
    let caller = Caller::new(node.sip()).await;
    let failures =
        [Reply::Status(500), Reply::Status(429), Reply::Status(404), Reply::Redirect(elsewhere.url()), Reply::Close];
    for (index, failure) in failures.into_iter().enumerate() {
        receiver.next(failure.clone());
        let created = node.api().create(&phone(u32::try_from(index).unwrap())).await;
        assert_eq!(caller.call(&created.phone, &created.number).await, 486);
        let tries = receiver.wait_about(&created.id, 2).await;
        assert_eq!(tries[0].id(), tries[1].id(), "{failure:?}");
        assert_eq!(tries[0].body, tries[1].body, "{failure:?}");
    }
    node.all_delivered().await;
    assert_eq!(elsewhere.connections(), 0, "a redirect is not followed");
    let failed = node.metric("ringproof_webhook_attempts_total", &["result=\"failed\""]).await;
    let delivered = node.metric("ringproof_webhook_attempts_total", &["result=\"delivered\""]).await;
    assert_eq!((failed, delivered), (5, 5));
}

#[tokio::test]
async fn an_endpoint_that_asks_for_batches_gets_every_event_with_its_id_in_one() {
    let (batches, single) = (Receiver::start().await, Receiver::start().await);
    // What is refused as a whole comes again, each event alone.
    batches.next(Reply::Status(422));
    let webhooks = [webhook(&batches.url(), "batch = 50"), webhook(&single.url(), "")];
    let node = Node::start(Config { applications: application("demo", "", &webhooks), ..Config::new("") }).await;
    let caller = Caller::new(node.sip()).await;
    let mut created = Vec::new();
    for index in 0..40 {
        created.push(node.api().create(&phone(index)).await);
    }
    for one in &created {
        assert_eq!(caller.call(&one.phone, &one.number).await, 486);
    }
    node.all_delivered().await;
    let mut wanted = Vec::new();
    for one in &created {
        let alone = single.event(&one.id, "verification.verified").await;
        let mut event = alone.event();
        event["id"] = alone.id().into();
        event["object"] = "event".into();
        wanted.push(event);
    }
    let requests = batches.deliveries();
    let got: Vec<Value> = requests
        .iter()
        .flat_map(|request| {
            assert!(request.kind() == "event.batch" && request.id().starts_with("bat_"));
            request.event()["data"]["events"].as_array().unwrap().clone()
        })
        .collect();
    for event in &wanted {
        assert!(got.contains(event), "{event}");
    }
    let refused = requests[0].event()["data"]["events"].as_array().unwrap().len();
    assert_eq!(got.len(), wanted.len() + refused);
}

#[tokio::test]
async fn an_endpoint_that_is_down_gets_its_events_when_it_is_up() {
    let receiver = Receiver::start().await;
    // A port that was just given back: nobody listens there.
    let place = std::net::TcpListener::bind("127.0.0.3:0").unwrap().local_addr().unwrap();
    let webhooks = [webhook(&format!("http://{place}/hook"), ""), webhook(&receiver.url(), "")];
    let node = Node::start(Config { applications: application("demo", "", &webhooks), ..Config::new("") }).await;
    let created = node.api().create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
    until("a failed attempt", async || {
        (node.metric("ringproof_webhook_attempts_total", &["result=\"failed\""]).await >= 1).then_some(())
    })
    .await;
    let late = Receiver::at(place).await;
    let delivery = late.event(&created.id, "verification.verified").await;
    assert_eq!(delivery.id(), receiver.about(&created.id)[0].id(), "one event, one id at every endpoint");
    node.all_delivered().await;
}

#[tokio::test]
async fn events_for_an_endpoint_that_is_removed_wait_until_it_is_back() {
    let (removed, other) = (Receiver::start().await, Receiver::start().await);
    removed.usually(Reply::Status(500));
    let mut node = Node::start(Config::new(&removed.url())).await;
    let created = node.api().create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    let first = removed.event(&created.id, "verification.verified").await;
    node.process.kill();
    let before = node.config.applications.clone();
    node.config.applications = application("demo", "", &[webhook(&other.url(), "")]);
    node.restart().await;
    node.all_delivered().await;
    let tries = removed.about(&created.id).len();
    let second = node.api().create(&phone(2)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&second.phone, &second.number).await, 486);
    other.event(&second.id, "verification.verified").await;
    assert_eq!(removed.about(&created.id).len(), tries, "nothing goes to what is not configured");
    assert!(other.about(&created.id).is_empty(), "nor to another in its place");
    node.process.kill();
    removed.usually(Reply::Status(204));
    node.config.applications = before;
    node.restart().await;
    let all = removed.wait_about(&created.id, tries + 1).await;
    assert_eq!((all[tries].id(), &all[tries].body), (first.id(), &first.body));
    node.all_delivered().await;
}

#[tokio::test]
async fn events_go_to_their_own_application_and_subscription() {
    let (terminal, picky, other) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let mine = [
        webhook(&terminal.url(), ""),
        webhook(&picky.url(), "events = [\"verification.created\", \"verification.canceled\"]"),
    ];
    let applications = application("demo", "", &mine)
        + &application("shop", "", &[webhook(&other.url(), "events = [\"verification.*\"]")]);
    let numbers = format!("{NUMBERS}applications = [\"demo\", \"shop\"]\n");
    let node = Node::start(Config { numbers, applications, ..Config::new("") }).await;
    let verified = node.api().create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&verified.phone, &verified.number).await, 486);
    let canceled = node.api().create(&phone(2)).await;
    assert_eq!(node.api().cancel(&canceled.id).await.status, 200);
    terminal.event(&verified.id, "verification.verified").await;
    terminal.event(&canceled.id, "verification.canceled").await;
    picky.event(&verified.id, "verification.created").await;
    picky.event(&canceled.id, "verification.created").await;
    picky.event(&canceled.id, "verification.canceled").await;
    node.all_delivered().await;
    assert_eq!((terminal.deliveries().len(), picky.deliveries().len(), other.deliveries().len()), (2, 3, 0));
}

#[tokio::test]
async fn a_live_application_reaches_no_private_address_by_a_public_looking_name() {
    let receiver = Receiver::start().await;
    // A name for this machine that does not give itself away, so that the configuration takes it.
    let name = hostname();
    let port = receiver.port();
    let private = (name.as_str(), port).to_socket_addrs().map_or(0, |found| found.filter(is_private).count());
    if private == 0 || name == "localhost" {
        eprintln!("SKIPPED: {name:?} is no name with a private address here");
        return;
    }
    let live = |url: &str, lines: &str| {
        application("demo", "mode = \"live\"", &[webhook(url, lines)])
            .replace(&key_hash(&crate::config::key("demo")), &key_hash(&live_key("demo")))
    };
    let trunks = format!("{TRUNK}allow_loopback = true\n");
    let config = Config { trunks, applications: live(&format!("https://{name}:{port}/hook"), ""), ..Config::new("") };
    let mut node = Node::start(config).await;
    let api = node.api_of(&live_key("demo"));
    let created = api.create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    assert_eq!(api.verification(&created.id).await["livemode"], true);
    until("a refused address", async || {
        let refused = node.metric("ringproof_webhook_attempts_total", &["result=\"refused_address\""]).await;
        (refused >= 1).then_some(())
    })
    .await;
    assert_eq!(receiver.connections(), 0, "nothing is connected to");

    // Where the operator allows it, the event arrives. A new address is a new endpoint, so it is a new event.
    node.process.kill();
    node.config.applications = live(&receiver.url(), "allow_private = true");
    node.restart().await;
    let api = node.api_of(&live_key("demo"));
    let created = api.create(&phone(2)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn is_private(address: &std::net::SocketAddr) -> bool {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        std::net::IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}
