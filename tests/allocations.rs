//! A call that nobody waits for allocates nothing: the SIP threads of a real node, over a real socket.
//!
//! The allocator of this test counts what threads named `sip-` take. It stands alone in its file, for the count is of
//! the whole process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unsafe_code, reason = "an allocator has no safe interface")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringproof::config;
use ringproof::engine::{Signals, clock, serve};

/// Allocations of the SIP threads.
static TAKEN: AtomicU64 = AtomicU64::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

/// Asks the kernel who runs, for thread-local storage may allocate itself.
fn count() {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    if name.starts_with(b"sip-") {
        TAKEN.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_call_that_nobody_waits_for_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        r#"
[node]
data_dir = "{}"
[sip]
listen = ["udp://127.0.0.1:{port}"]
workers = 2
[[trunk]]
name = "carrier"
peers = ["127.0.0.0/8"]
country = "SA"
[[number]]
range = "+966115000000/100"
trunks = ["carrier"]
[[application]]
name = "demo"
mode = "sandbox"
[api]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
"#,
        folder.path().join("data").display()
    );
    let file = folder.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    let configuration = config::load(&file).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let signals = {
        let _context = runtime.enter();
        Signals::new().unwrap()
    };
    let node =
        runtime.spawn(async move { serve(&file, configuration, signals).await.map_err(|error| error.to_string()) });

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let deadline = clock::instant() + Duration::from_secs(30);
    // Both workers grow their buffers once.
    let mut number = 0;
    while number < 2_000 {
        assert!(clock::instant() < deadline && !node.is_finished(), "the node does not answer");
        number += u32::from(call(&socket, number));
    }
    let before = TAKEN.load(Ordering::Relaxed);
    assert!(before > 0, "nothing is counted");
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    for number in 2_000..12_000 {
        assert!(call(&socket, number), "call {number} is not answered");
    }
    assert_eq!(TAKEN.load(Ordering::Relaxed) - before, 0, "allocations in 10,000 calls");
}

/// Places a call from its own number and acknowledges its refusal; whether there was one.
fn call(socket: &UdpSocket, number: u32) -> bool {
    let request = |method: &str, more: &str| {
        format!(
            "{method} sip:+966115000042@127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{number:08};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:+9665{number:08}@127.0.0.1>;tag={number}\r\nTo: <sip:+966115000042@127.0.0.1>{more}\r\n\
             Call-ID: {number}@allocations\r\nCSeq: 1 {method}\r\n\
             P-Asserted-Identity: <sip:+9665{number:08}@127.0.0.1>\r\nContent-Length: 0\r\n\r\n"
        )
    };
    socket.send(request("INVITE", "").as_bytes()).unwrap();
    let mut answer = [0; 2048];
    let own = format!("\r\nCall-ID: {number}@");
    loop {
        let Ok(length) = socket.recv(&mut answer) else { return false };
        let answer = std::str::from_utf8(&answer[..length]).unwrap();
        assert!(answer.starts_with("SIP/2.0 486 "), "{answer}");
        // One that was late for an earlier try is passed over.
        if answer.contains(&own) {
            break;
        }
    }
    socket.send(request("ACK", ";tag=1").as_bytes()).unwrap();
    true
}
