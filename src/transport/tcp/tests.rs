//! Listener and connection against real sockets on the loopback interface.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream as Peer};
use std::time::Duration;

use socket2::SockRef;
use tokio::time::timeout;

use super::*;
use crate::sip::flow::Flow;
use crate::transport::TransportError;

const PING: &[u8] = b"\r\n\r\n";
const MESSAGE: &[u8] = b"ACK sip:a@b SIP/2.0\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_dual_stack_wildcard_takes_both_families_and_tells_plain_addresses() {
    let listener = listener("[::]:0");
    let port = listener.local_addr().port();
    for (target, family) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let ip: IpAddr = target.parse().unwrap();
        let peer = Peer::connect((ip, port)).unwrap();
        let (_stream, flow) = listener.accept(|error| panic!("{error}")).await;
        let expected: IpAddr = family.parse().unwrap();
        assert_eq!(flow, Flow { transport: crate::sip::flow::Transport::Tcp, local: flow.local, remote: flow.remote });
        assert_eq!((flow.local, flow.remote), (peer.peer_addr().unwrap(), peer.local_addr().unwrap()));
        assert_eq!(flow.local.ip(), expected);
    }
}

#[tokio::test]
async fn an_address_in_use_is_told_and_one_just_left_is_free() {
    let bound = open("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = bound.local_addr();
    let error = open(address).unwrap_err();
    assert!(matches!(error, TransportError::Bind { .. }), "{error}");
    assert!(error.to_string().contains(&format!("tcp://{address}")), "{error}");
    let listener = bound.register().unwrap();
    let peer = Peer::connect(address).unwrap();
    let (stream, _) = listener.accept(|error| panic!("{error}")).await;
    // This end closes first, so the connection holds the port.
    drop((stream, listener));
    drop(peer);
    open(address).unwrap();
}

#[tokio::test]
async fn connections_inherit_the_options_of_their_listener() {
    let (mut connection, _peer) = connection(settings()).await;
    let socket = SockRef::from(connection.stream());
    assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_mins(1));
    assert!(connection.buffers().0.take().unwrap().is_none());
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    let (mut connection, mut peer) = connection(settings()).await;
    peer.write_all(&MESSAGE.repeat(3)).unwrap();
    let mut messages = 0;
    while messages < 3 {
        connection.receive().await.unwrap();
        let (input, output) = connection.buffers();
        while let Some(piece) = input.take().unwrap() {
            assert_eq!(piece, Piece::Message(MESSAGE));
            output.push(|bytes| bytes.extend_from_slice(b"answer"));
            messages += 1;
        }
        connection.settle().unwrap();
    }
    let (input, output) = connection.buffers();
    assert_eq!((input.size(), output.size()), ((0, 0), (0, 0)));
    let mut answers = [0; 18];
    peer.read_exact(&mut answers).unwrap();
    assert_eq!(&answers, b"answeransweranswer");
}

#[tokio::test]
async fn a_long_message_comes_byte_by_byte_and_leaves_nothing_behind() {
    let (mut connection, mut peer) = connection(settings()).await;
    let body = 20_000;
    let message = format!("ACK sip:a@b SIP/2.0\r\nl: {body}\r\n\r\n{}", "x".repeat(body));
    let sent = message.clone();
    let writer = std::thread::spawn(move || {
        peer.write_all(PING).unwrap();
        sent.bytes().for_each(|byte| peer.write_all(&[byte]).unwrap());
        peer
    });
    let (mut pings, mut found) = (0, Vec::new());
    while found.is_empty() {
        connection.receive().await.unwrap();
        let (input, _) = connection.buffers();
        while let Some(piece) = input.take().unwrap() {
            match piece {
                Piece::Ping => pings += 1,
                Piece::Message(bytes) => found.push(bytes.to_vec()),
            }
        }
        assert!(input.size().1 <= 4 * message.len());
        connection.settle().unwrap();
    }
    assert_eq!((pings, found), (1, vec![message.into_bytes()]));
    assert_eq!(connection.buffers().0.size(), (0, 0));
    drop(writer.join().unwrap());
    assert_eq!(connection.receive().await, Err(CloseReason::Peer));
}

#[tokio::test]
async fn silence_and_dribbling_end_a_connection() {
    let short = Duration::from_millis(150);
    let (mut quiet, _peer) = connection(Settings { idle: short, ..settings() }).await;
    assert_eq!(quiet.receive().await, Err(CloseReason::Idle));

    let (mut slow, mut peer) = connection(Settings { message: short, ..settings() }).await;
    let dribble = std::thread::spawn(move || {
        for byte in MESSAGE.iter().cycle().take(40) {
            if peer.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
    let end = loop {
        if let Err(reason) = slow.receive().await {
            break reason;
        }
        while slow.buffers().0.take().unwrap().is_some() {}
        slow.settle().unwrap();
    };
    assert_eq!(end, CloseReason::SlowMessage);
    drop(slow);
    dribble.join().unwrap();
}

#[tokio::test]
async fn a_peer_that_takes_nothing_gets_no_more_and_is_let_go() {
    let short = Duration::from_millis(300);
    let (mut connection, mut peer) = connection(Settings { message: short, ..settings() }).await;
    peer.write_all(MESSAGE).unwrap();
    let answer = vec![b'x'; 60_000];
    let mut given = 0;
    while connection.has_room() {
        connection.buffers().1.push(|bytes| bytes.extend_from_slice(&answer));
        connection.settle().unwrap();
        given += 1;
    }
    assert!(connection.unsent() >= 1 && connection.unsent() <= 2, "{given} answers given");
    let held = connection.buffers().1.size().0;
    assert!(held < 130_000, "{held}");
    // What it says is not read any more, and its time runs out.
    assert_eq!(connection.receive().await, Err(CloseReason::SlowReader));
    assert!(connection.close().await >= 1);
}

#[tokio::test]
async fn a_peer_that_takes_its_answers_late_gets_all_of_them() {
    let (mut connection, mut peer) = connection(settings()).await;
    let answer = vec![b'x'; 60_000];
    let mut given = 0;
    while connection.has_room() {
        connection.buffers().1.push(|bytes| bytes.extend_from_slice(&answer));
        connection.settle().unwrap();
        given += answer.len();
    }
    let reader = std::thread::spawn(move || {
        let mut read = vec![0; given];
        peer.read_exact(&mut read).unwrap();
        peer.write_all(MESSAGE).unwrap();
        peer
    });
    connection.receive().await.unwrap();
    assert!(connection.has_room() && connection.unsent() == 0);
    assert_eq!(connection.buffers().0.take().unwrap(), Some(Piece::Message(MESSAGE)));
    drop(reader.join().unwrap());
}

#[tokio::test]
async fn the_last_answer_reaches_a_peer_that_still_sends() {
    let (mut connection, mut peer) = connection(settings()).await;
    peer.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    connection.receive().await.unwrap();
    connection.buffers().0.take().unwrap_err();
    // More has come and is never read: a plain close would take the answer back.
    peer.write_all(&vec![b'x'; 30_000]).unwrap();
    connection.buffers().1.push(|bytes| bytes.extend_from_slice(b"goodbye"));
    let reader = std::thread::spawn(move || {
        let mut read = Vec::new();
        peer.read_to_end(&mut read).map(|_| read)
    });
    assert_eq!(timeout(Duration::from_secs(5), connection.close()).await, Ok(0));
    assert_eq!(reader.join().unwrap().unwrap(), b"goodbye");
}

fn settings() -> Settings {
    let long = Duration::from_mins(1);
    Settings { connections: 10, connections_per_peer: 10, idle: long, message: long }
}

fn listener(address: &str) -> Listener {
    open(address.parse().unwrap()).unwrap().register().unwrap()
}

async fn connection(settings: Settings) -> (Connection, Peer) {
    let listener = listener("127.0.0.1:0");
    let address: SocketAddr = listener.local_addr();
    let peer = Peer::connect(address).unwrap();
    let (stream, flow) = listener.accept(|error| panic!("{error}")).await;
    (Connection::new(stream, flow, &settings), peer)
}
