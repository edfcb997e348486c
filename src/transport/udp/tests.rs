//! The listener against real sockets on the loopback interface.

use std::net::{IpAddr, SocketAddr, UdpSocket as Peer};
use std::time::Duration;

use super::*;
use crate::transport::TransportError;

#[tokio::test]
async fn ipv4_datagram_comes_in_and_its_answer_goes_back() {
    echo_from("127.0.0.1:0", "127.0.0.1").await;
}

#[tokio::test]
async fn ipv6_datagram_comes_in_and_its_answer_goes_back() {
    echo_from("[::1]:0", "::1").await;
}

#[tokio::test]
async fn ipv4_wildcard_answers_from_the_address_that_was_hit() {
    echo_from("0.0.0.0:0", "127.0.0.2").await;
}

#[tokio::test]
async fn dual_stack_wildcard_answers_from_the_ipv4_address_that_was_hit() {
    echo_from("[::]:0", "127.0.0.2").await;
}

#[tokio::test]
async fn dual_stack_wildcard_answers_ipv6_too() {
    echo_from("[::]:0", "::1").await;
}

#[tokio::test]
async fn a_mapped_listen_address_is_plain_ipv4() {
    let socket = listener("[::ffff:127.0.0.1]:0");
    assert_eq!(socket.local_addr().ip(), "127.0.0.1".parse::<IpAddr>().unwrap());
}

#[tokio::test]
async fn a_hundred_datagrams_come_in_batches_and_go_back_by_length() {
    let socket = listener("127.0.0.1:0");
    let peer = peer_of(socket.local_addr());
    let (mut inbox, mut outgoing) = (Inbox::new(), Outgoing::new());
    // Equal lengths go as runs, the longer ones first.
    let message = |index: usize| format!("{index:04}{}", "x".repeat(if index.is_multiple_of(3) { 500 } else { 300 }));
    for index in 0..100 {
        peer.send(message(index).as_bytes()).unwrap();
    }

    let mut batches = Vec::new();
    while batches.iter().sum::<usize>() < 100 {
        let count = receive(&socket, &mut inbox).await;
        batches.push(count);
        for datagram in inbox.iter() {
            outgoing.push(datagram.remote, datagram.local, |buffer| buffer.extend_from_slice(datagram.bytes)).unwrap();
        }
        assert_eq!(outgoing.flush(&socket).await, Flushed { sent: count, dropped: 0 });
    }

    assert!(batches.len() < 100, "{batches:?}");
    let mut from = 0;
    for count in batches {
        let (long, short): (Vec<usize>, Vec<usize>) = (from..from + count).partition(|index| index.is_multiple_of(3));
        for index in long.into_iter().chain(short) {
            assert_eq!(read(&peer), message(index).as_bytes());
        }
        from += count;
    }
}

#[tokio::test]
async fn runs_end_in_one_shorter_message() {
    let socket = listener("127.0.0.1:0");
    let peer = peer_of(socket.local_addr());
    let mut outgoing = Outgoing::new();
    let lengths = [400, 380, 380, 420, 400, 1_300, 200, 200, 200, 90, 1, 1_200, 1_200];
    for length in lengths {
        let byte = u8::try_from(length % 251).unwrap();
        outgoing
            .push(peer.local_addr().unwrap(), "127.0.0.1".parse().unwrap(), |buffer| buffer.extend(vec![byte; length]))
            .unwrap();
    }
    assert_eq!(outgoing.flush(&socket).await, Flushed { sent: lengths.len(), dropped: 0 });
    let mut sorted = lengths;
    sorted.sort_unstable_by(|one, other| other.cmp(one));
    for length in sorted {
        assert_eq!(read(&peer), vec![u8::try_from(length % 251).unwrap(); length]);
    }
}

#[tokio::test]
async fn equal_answers_to_one_peer_arrive_as_single_datagrams() {
    for listen in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let socket = listener(listen);
        let peer = peer_of(SocketAddr::new("127.0.0.1".parse().unwrap(), socket.local_addr().port()));
        let mut outgoing = Outgoing::new();
        for index in 0..64u8 {
            let from = "127.0.0.1".parse().unwrap();
            outgoing.push(peer.local_addr().unwrap(), from, |buffer| buffer.extend([index; 400])).unwrap();
        }
        assert_eq!(outgoing.flush(&socket).await, Flushed { sent: 64, dropped: 0 });
        for index in 0..64u8 {
            assert_eq!(read(&peer), [index; 400], "{listen}");
        }
    }
}

#[tokio::test]
async fn the_largest_and_the_empty_datagram_pass() {
    let socket = listener("127.0.0.1:0");
    let peer = peer_of(socket.local_addr());
    let (mut inbox, mut outgoing) = (Inbox::new(), Outgoing::new());
    let largest = vec![b'x'; 65_507];
    peer.send(&[]).unwrap();
    assert_eq!(receive(&socket, &mut inbox).await, 1);
    assert_eq!(inbox.datagram(0).bytes, b"");
    assert_eq!(inbox.datagram(0).remote, peer.local_addr().unwrap());

    peer.send(&largest).unwrap();
    assert_eq!(receive(&socket, &mut inbox).await, 1);
    assert_eq!(inbox.datagram(0).bytes, largest);
    assert!(!inbox.datagram(0).truncated);
    let Datagram { bytes, remote, local, .. } = inbox.datagram(0);
    outgoing.push(remote, local, |buffer| buffer.extend_from_slice(bytes)).unwrap();
    assert_eq!(outgoing.flush(&socket).await.sent, 1);
    assert_eq!(read(&peer), largest);
}

#[tokio::test]
async fn a_run_comes_apart_again() {
    for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let (socket, sender) = (listener(listen), listener(listen));
        let host = if listen == "127.0.0.1:0" { "127.0.0.1" } else { "::1" };
        let [to, from] = [&socket, &sender].map(|end| SocketAddr::new(host.parse().unwrap(), end.local_addr().port()));
        let (mut inbox, mut outgoing) = (Inbox::new(), Outgoing::new());
        let sent: Vec<Vec<u8>> = (0..40u8).map(|index| vec![index; if index < 39 { 500 } else { 300 }]).collect();
        for message in &sent {
            outgoing.push(to, from.ip(), |buffer| buffer.extend_from_slice(message)).unwrap();
        }
        assert_eq!(outgoing.flush(&sender).await.sent, sent.len());
        let mut come = Vec::new();
        while come.len() < sent.len() {
            receive(&socket, &mut inbox).await;
            for datagram in inbox.iter() {
                assert_eq!((datagram.remote, datagram.truncated), (from, false), "{listen}");
                come.push(datagram.bytes.to_vec());
            }
        }
        assert_eq!(come, sent, "{listen}");
    }
}

#[tokio::test]
async fn a_datagram_longer_than_its_room_is_marked() {
    let socket = listener("127.0.0.1:0");
    let peer = peer_of(socket.local_addr());
    let mut inbox = Inbox::with_room(100);
    for (length, kept, truncated) in [(101, 100, true), (100, 100, false)] {
        peer.send(&vec![b'x'; length]).unwrap();
        assert_eq!(receive(&socket, &mut inbox).await, 1);
        assert_eq!((inbox.datagram(0).bytes.len(), inbox.datagram(0).truncated), (kept, truncated));
    }
}

#[tokio::test]
async fn every_socket_of_a_port_gets_a_share_of_one_peers_datagrams() {
    for listen in ["127.0.0.1:0", "[::]:0"] {
        let sockets = open(listen.parse().unwrap(), 2).unwrap();
        assert_eq!(sockets[0].local_addr(), sockets[1].local_addr());
        let [first, second] = <[_; 2]>::try_from(sockets).unwrap().map(|socket| socket.register().unwrap());
        let peer = peer_of(SocketAddr::new("127.0.0.1".parse().unwrap(), first.local_addr().port()));
        for _ in 0..200 {
            peer.send(b"x").unwrap();
        }

        let (mut inbox, mut shares) = (Inbox::new(), [0, 0]);
        while shares.iter().sum::<usize>() < 200 {
            for (socket, share) in [&first, &second].into_iter().zip(&mut shares) {
                *share += inbox.receive(socket).unwrap();
            }
            tokio::task::yield_now().await;
        }
        // A fair coin gives either socket fewer than 50 of 200 once in 10^13 runs.
        assert!(shares.iter().all(|share| *share >= 50), "{listen}: {shares:?}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_refused_even_by_a_listener_that_shares() {
    let held = open("127.0.0.1:0".parse().unwrap(), 2).unwrap();
    for sockets in [1, 2] {
        let error = open(held[0].local_addr(), sockets).unwrap_err();
        assert!(matches!(error, TransportError::Bind { address, .. } if address == held[0].local_addr()), "{error}");
    }
}

#[tokio::test]
async fn a_bad_destination_costs_its_own_message_only() {
    let socket = listener("127.0.0.1:0");
    let peer = peer_of(socket.local_addr());
    let good = peer.local_addr().unwrap();
    let from = socket.local_addr().ip();
    let mut outgoing = Outgoing::new();
    let bad = ["[::1]:5060", "127.0.0.1:0", "255.255.255.255:5060"];
    for (index, bad) in bad.iter().enumerate() {
        outgoing.push(bad.parse().unwrap(), from, |buffer| buffer.extend_from_slice(b"bad")).unwrap();
        outgoing.push(good, from, |buffer| buffer.extend(index.to_be_bytes())).unwrap();
    }
    outgoing.push(good, from, |buffer| buffer.resize(buffer.len() + 65_520, b'x')).unwrap();
    outgoing.push(good, from, |buffer| buffer.extend_from_slice(b"last")).unwrap();

    assert_eq!(outgoing.flush(&socket).await, Flushed { sent: 4, dropped: 4 });
    assert!(outgoing.is_empty());
    for index in 0..bad.len() {
        assert_eq!(read(&peer), index.to_be_bytes());
    }
    assert_eq!(read(&peer), b"last");
}

#[tokio::test]
async fn a_run_to_a_bad_destination_does_not_stop_the_next() {
    let socket = listener("127.0.0.1:0");
    let peer = peer_of(socket.local_addr());
    let (good, from) = (peer.local_addr().unwrap(), socket.local_addr().ip());
    let mut outgoing = Outgoing::new();
    for to in ["127.0.0.1:0".parse().unwrap(), good] {
        for _ in 0..3 {
            outgoing.push(to, from, |buffer| buffer.extend_from_slice(b"same")).unwrap();
        }
    }
    assert_eq!(outgoing.flush(&socket).await, Flushed { sent: 3, dropped: 3 });
    for _ in 0..3 {
        assert_eq!(read(&peer), b"same");
    }
}

#[tokio::test]
async fn a_closed_port_at_the_peer_ends_nothing() {
    let socket = listener("127.0.0.1:0");
    let peer = peer_of(socket.local_addr());
    let closed = Peer::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (mut inbox, mut outgoing) = (Inbox::new(), Outgoing::new());
    for _ in 0..5 {
        outgoing.push(closed, closed.ip(), |buffer| buffer.extend_from_slice(b"nobody")).unwrap();
        outgoing.push(peer.local_addr().unwrap(), closed.ip(), |buffer| buffer.extend_from_slice(b"peer")).unwrap();
        assert_eq!(outgoing.flush(&socket).await, Flushed { sent: 2, dropped: 0 });
        assert_eq!(read(&peer), b"peer");
        peer.send(b"again").unwrap();
        assert_eq!(receive(&socket, &mut inbox).await, 1);
        assert_eq!(inbox.datagram(0).bytes, b"again");
    }
}

#[tokio::test]
async fn what_the_kernel_drops_is_counted_once() {
    let socket = listener("127.0.0.1:0");
    let peer = peer_of(socket.local_addr());
    let mut inbox = Inbox::new();
    // Twice the buffer: the kernel's own bookkeeping makes the room for payload smaller than the buffer.
    let sent = 2 * 2 * socket.receive_buffer() / 60_000;
    let large = vec![0; 60_000];
    for _ in 0..sent {
        peer.send(&large).unwrap();
    }
    // The count comes with the next datagram that finds room.
    let (mut received, mut drops, mut probes) = (0, 0, 0);
    let all_told = async {
        while received + drops < sent + probes || drops == 0 {
            peer.send(b"probe").unwrap();
            probes += 1;
            received += receive(&socket, &mut inbox).await;
            drops += inbox.kernel_drops() as usize;
        }
    };
    tokio::time::timeout(DEADLINE, all_told).await.expect("every datagram is received or counted");
    assert_eq!(received + drops, sent + probes);
}

#[tokio::test]
async fn a_full_batch_and_an_overlong_message_are_refused() {
    let mut outgoing = Outgoing::new();
    let (to, from) = ("127.0.0.1:5060".parse().unwrap(), "127.0.0.1".parse().unwrap());
    let long = outgoing.push(to, from, |buffer| buffer.resize(65_536, b'x'));
    assert_eq!(long, Err(PushError::TooLong { length: 65_536 }));
    outgoing.push(to, from, |_| {}).unwrap();
    assert_eq!(outgoing.len(), 0);
    while outgoing.len() < 64 {
        outgoing.push(to, from, |buffer| buffer.push(b'x')).unwrap();
    }
    assert_eq!(outgoing.push(to, from, |_| panic!("there is no room to write to")), Err(PushError::Full));
}

#[tokio::test]
async fn the_receive_buffer_is_read_back() {
    let socket = listener("127.0.0.1:0");
    assert!((1..=RECEIVE_BUFFER).contains(&socket.receive_buffer()), "{}", socket.receive_buffer());
}

/// Opens `listen`, sends to `hit`, and expects the answer from `hit`: the peer's socket takes no other.
async fn echo_from(listen: &str, hit: &str) {
    let socket = listener(listen);
    let hit: IpAddr = hit.parse().unwrap();
    let peer = peer_of(SocketAddr::new(hit, socket.local_addr().port()));
    let (mut inbox, mut outgoing) = (Inbox::new(), Outgoing::new());
    // Twice, for the second round waits for a socket that has been emptied before.
    for message in ["first", "second"] {
        peer.send(message.as_bytes()).unwrap();
        assert_eq!(receive(&socket, &mut inbox).await, 1);
        let datagram = inbox.datagram(0);
        assert_eq!((datagram.bytes, datagram.truncated), (message.as_bytes(), false));
        assert_eq!((datagram.remote, datagram.local), (peer.local_addr().unwrap(), hit));
        outgoing.push(datagram.remote, datagram.local, |buffer| buffer.extend_from_slice(b"answer")).unwrap();
        assert_eq!(outgoing.flush(&socket).await, Flushed { sent: 1, dropped: 0 });
        assert_eq!(read(&peer), b"answer");
    }
}

fn listener(address: &str) -> UdpSocket {
    let mut sockets = open(address.parse().unwrap(), 1).unwrap();
    sockets.remove(0).register().unwrap()
}

fn peer_of(listener: SocketAddr) -> Peer {
    let any = if listener.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let peer = Peer::bind(any).unwrap();
    peer.connect(listener).unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    peer
}

async fn receive(socket: &UdpSocket, inbox: &mut Inbox) -> usize {
    let wait = async {
        loop {
            socket.readable().await.unwrap();
            let count = inbox.receive(socket).unwrap();
            if count > 0 {
                return count;
            }
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("a datagram arrives in time")
}

fn read(peer: &Peer) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = peer.recv(&mut buffer).expect("an answer arrives in time");
    buffer.truncate(length);
    buffer
}

const DEADLINE: Duration = Duration::from_secs(5);
