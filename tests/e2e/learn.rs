//! `ringproof trunk learn`: a capture becomes a trunk that `ringproof check` takes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::caller::Request;
use crate::config::phone;
use crate::node::{Directory, PROGRAM};

/// A pcap file of IPv4 datagrams without a link layer (`LINKTYPE_RAW`, 101).
fn capture(datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for (second, payload) in (0u32..).zip(datagrams) {
        let mut packet = vec![0x45, 0];
        packet.extend(u16::try_from(28 + payload.len()).unwrap().to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 7, 10, 0, 0, 1]);
        for field in [5060, 5060, u16::try_from(8 + payload.len()).unwrap(), 0] {
            packet.extend(field.to_be_bytes());
        }
        packet.extend(payload);
        let length = u32::try_from(packet.len()).unwrap();
        for word in [1_700_000_000 + second, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

fn ringproof(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_capture_becomes_a_trunk_that_the_configuration_takes() {
    let directory = Directory::new();
    let local = "10.0.0.7:5060".parse().unwrap();
    let calls: Vec<Vec<u8>> =
        (0..50).map(|n| Request::invite(&phone(n), &format!("+9661150000{n:02}")).bytes(local)).collect();
    fs::write(directory.0.join("calls.pcap"), capture(&calls)).unwrap();
    let learned = ringproof(&directory.0, &["trunk", "learn", "calls.pcap"]);
    let block = text(&learned.stdout);
    assert_eq!(learned.status.code(), Some(0), "{}", text(&learned.stderr));
    assert!(block.contains("peers") && block.contains("10.0.0.7/32") && block.contains("country = \"SA\""), "{block}");
    assert!(!block.contains(&phone(7)[4..]), "no number is whole: {block}");
    let name = block.lines().find_map(|line| line.strip_prefix("name")).unwrap();
    let name = name.split('"').nth(1).unwrap();
    let rest =
        format!("[[number]]\nrange = \"+966115000000/100\"\ntrunks = [\"{name}\"]\n[[application]]\nname = \"demo\"\n");
    fs::write(directory.0.join("config.toml"), format!("{block}\n{rest}")).unwrap();
    let checked = ringproof(&directory.0, &["check"]);
    assert_eq!(checked.status.code(), Some(0), "{}{block}", text(&checked.stderr));
}

#[test]
fn what_is_no_capture_is_told() {
    let directory = Directory::new();
    fs::write(directory.0.join("calls.pcap"), "INVITE").unwrap();
    for (file, why) in [("calls.pcap", "neither a pcap nor a pcapng"), ("nothing.pcap", "cannot be read")] {
        let told = ringproof(&directory.0, &["trunk", "learn", file]);
        assert_eq!(told.status.code(), Some(2));
        assert!(text(&told.stderr).contains(why), "{}", text(&told.stderr));
    }
}
