//! A connection's calls that wait, with a peer on a real socket and no store that could be slow enough.

use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::call::event::TrunkId;
use crate::engine::clock::CLOCK;
use crate::engine::peers::Peers;
use crate::engine::waiting::WaitingCall;
use crate::outbox::delivery::Subscriptions;
use crate::sip::transaction::key::HashKey;
use crate::store::{self, Store};
use crate::telemetry::metrics::Metrics;
use crate::transport::tcp::{Settings, open};
use crate::verify::Verify;
use crate::verify::recent_calls::RecentCalls;

const INVITE: &[u8] = b"INVITE sip:+966115000001@gw SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK1\r\n\
    From: <sip:a@b>;tag=1\r\nTo: <sip:+966115000001@gw>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_call_that_has_waited_too_long_gets_503_and_no_second_answer() {
    let mut rig = Rig::new().await;
    rig.hold(1, PATIENCE.checked_sub(Duration::from_millis(50)).unwrap());
    rig.hold(2, Duration::ZERO);
    let mut peer = rig.run();
    assert!(rig.heard().await.starts_with("SIP/2.0 503 "));
    peer.finish.send((1, Outcome::Durable)).await.unwrap();
    peer.finish.send((2, Outcome::Durable)).await.unwrap();
    assert!(rig.heard().await.starts_with("SIP/2.0 486 "), "the call that still waited");
    assert!(!rig.is_held(1) && !rig.is_held(2));
    peer.stop.send(true).unwrap();
    assert_eq!(rig.heard().await, "");
    assert_eq!((&mut peer.task).await.unwrap(), CloseReason::Stop);
}

#[tokio::test]
async fn the_outcome_of_a_call_that_another_connection_keeps_by_now_is_left_to_it() {
    let mut rig = Rig::new().await;
    let peer = rig.run();
    let (_, call) = rig.call(Duration::ZERO);
    rig.shared.waiting.hold(TransactionKey(7), || call);
    peer.finish.send((7, Outcome::Durable)).await.unwrap();
    peer.stop.send(true).unwrap();
    assert_eq!(rig.heard().await, "");
    assert!(rig.is_held(7));
}

#[tokio::test]
async fn a_peer_that_has_said_all_it_will_hears_the_answer_to_the_call_that_waits() {
    let mut rig = Rig::new().await;
    rig.hold(1, Duration::ZERO);
    let peer = rig.run();
    rig.peer.as_mut().unwrap().shutdown().await.unwrap();
    peer.finish.send((1, Outcome::Durable)).await.unwrap();
    assert!(rig.heard().await.starts_with("SIP/2.0 486 "));
    assert_eq!(rig.heard().await, "");
    rig.peer = None;
    assert_eq!(timeout(Duration::from_secs(10), peer.task).await.unwrap().unwrap(), CloseReason::Peer);
}

#[tokio::test]
async fn a_connection_that_ends_leaves_none_of_its_calls_behind() {
    let mut rig = Rig::new().await;
    rig.hold(1, Duration::ZERO);
    rig.hold(2, Duration::ZERO);
    let peer = rig.run();
    socket2::SockRef::from(rig.peer.as_ref().unwrap()).set_linger(Some(Duration::ZERO)).unwrap();
    rig.peer = None;
    assert_eq!(timeout(Duration::from_secs(10), peer.task).await.unwrap().unwrap(), CloseReason::Lost);
    assert!(!rig.is_held(1) && !rig.is_held(2));
    assert!(rig.metrics.render().contains("sip_dropped_total{reason=\"unsent\"} 2"));
}

struct Rig {
    shared: Arc<SipShared>,
    metrics: Metrics,
    connection: Option<SipConnection>,
    peer: Option<TcpStream>,
    _directory: TempDir,
}

struct Running {
    task: JoinHandle<CloseReason>,
    finish: mpsc::Sender<(u128, Outcome)>,
    stop: watch::Sender<bool>,
}

impl Rig {
    async fn new() -> Self {
        let text = include_str!("../../../config.toml");
        let configuration = crate::config::parse(text, "config.toml", &|_| None).unwrap();
        let (directory, metrics, health) = (TempDir::new().unwrap(), Metrics::new(), Arc::default());
        let settings = store::Settings { path: directory.path().join("test.db"), retention: configuration.retention };
        let (ready, _) = mpsc::channel(1);
        let subscriptions = Subscriptions(Vec::new());
        let store = Store::open(&settings, subscriptions, metrics.clone(), Arc::clone(&health), ready).unwrap();
        let recent = Arc::new(RecentCalls::new(1_024));
        let verify = Verify::new(
            configuration.verify.clone(),
            [1; 16],
            CLOCK,
            store,
            Arc::clone(&recent),
            crate::verify::records::Signing {
                keys: crate::receipt::keys::Keys::from_seed(&[1; 32]),
                issuer: String::new(),
            },
            metrics.clone(),
            Arc::clone(&health),
        );
        let peers = Peers::new(&configuration.peers);
        let key = HashKey::new([2; 16]);
        let shared = Arc::new(SipShared::new(configuration.trunks, peers, verify, recent, key, health, &metrics));

        let listener = open("127.0.0.1:0".parse().unwrap()).unwrap().register().unwrap();
        let peer = TcpStream::connect(listener.local_addr()).await.unwrap();
        let (stream, flow) = listener.accept(|error| panic!("{error}")).await;
        let long = Duration::from_mins(1);
        let settings = Settings { connections: 1, connections_per_peer: 1, idle: long, message: long };
        let connection = SipConnection::new(Arc::clone(&shared), Connection::new(stream, flow, &settings));
        Self { shared, metrics, connection: Some(connection), peer: Some(peer), _directory: directory }
    }

    /// A call that has waited for so long.
    fn call(&self, waited: Duration) -> (BootTime, WaitingCall) {
        let address = self.peer.as_ref().unwrap().local_addr().unwrap();
        let flow =
            crate::sip::flow::Flow { transport: crate::sip::flow::Transport::Tcp, local: address, remote: address };
        let since = BootTime(clock::boot().0 - u64::try_from(waited.as_millis()).unwrap());
        let call = WaitingCall {
            request: INVITE.into(),
            flow,
            trunk: TrunkId(0),
            canceled: false,
            since,
            received: clock::instant(),
            owner: Owner::Connection,
            answered: 0,
            capped: false,
        };
        (since, call)
    }

    /// Has the connection keep a call that has waited for so long.
    fn hold(&mut self, ticket: u128, waited: Duration) {
        let (since, call) = self.call(waited);
        self.shared.waiting.hold(TransactionKey(ticket), || call);
        self.connection.as_mut().unwrap().waiting.push_back((since, ticket));
    }

    /// Whether the call is kept; it is not any more.
    fn is_held(&self, ticket: u128) -> bool {
        self.shared.waiting.take(TransactionKey(ticket)).is_some()
    }

    fn run(&mut self) -> Running {
        let mut connection = self.connection.take().unwrap();
        let finish = connection.outcomes.get_or_insert_with(Outcomes::new).tell.clone();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move { connection.run(stopped).await });
        Running { task, finish, stop }
    }

    /// What the peer hears next; nothing at the end.
    async fn heard(&mut self) -> String {
        let mut bytes = Vec::new();
        let peer = self.peer.as_mut().unwrap();
        let read = async { while !bytes.ends_with(b"\r\n\r\n") && peer.read_buf(&mut bytes).await.unwrap() > 0 {} };
        timeout(Duration::from_secs(10), read).await.expect("an answer comes in time");
        String::from_utf8(bytes).unwrap()
    }
}
