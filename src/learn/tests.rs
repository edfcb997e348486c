//! Whole captures, made here byte by byte.

use super::*;

#[test]
fn a_capture_becomes_a_trunk_without_a_whole_number() {
    let mut capture = Capture::default();
    for index in 0..40 {
        let more = "P-Asserted-Identity: <tel:+447700900123;verstat=TN-Validation-Passed-A>\r\n\
            User-Agent: Cisco-SIPGateway/IOS-16.12.4\r\n";
        let text = invite(index, "07700900123", &format!("+4420794602{:02}", index % 10), more);
        capture.udp([192, 0, 2, 1 + u8::try_from(index % 3).unwrap()], &text);
    }
    capture.udp([192, 0, 2, 1], &invite(0, "07700900123", "+442079460200", "").replace("INVITE", "OPTIONS"));
    let text = learn(&capture.bytes[..]).unwrap().to_string();
    let config: toml::Table = text.parse().unwrap();
    let trunks = config["trunk"].as_array().unwrap();
    assert_eq!(trunks.len(), 1, "{text}");
    let trunk = &trunks[0];
    assert_eq!(trunk["peers"], toml::Value::from(vec!["192.0.2.0/30"]));
    for (key, value) in [
        ("country", "GB"),
        ("scope", "national"),
        ("path", "public"),
        ("profile", "cisco-cube"),
        ("forwarded", "refuse"),
    ] {
        assert_eq!(trunk[key].as_str(), Some(value), "{text}");
    }
    assert_eq!(trunk["did"]["source"].as_str(), Some("request-uri"));
    let cli = &trunk["cli"];
    assert_eq!(cli["sources"], toml::Value::from(vec!["pai", "from"]));
    assert_eq!(cli["asserted_trust"].as_str(), Some("none"));
    assert_eq!(cli["verdict_headers"].as_array().map(Vec::len), Some(0), "{text}");
    for part in ["40 calls", "+44********23", "\"verstat\" in 40: TN-Validation-Passed-A (40)", "1 OPTIONS"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for number in ["7700900123", "2079460200", "2079460209"] {
        assert!(!text.contains(number), "{number}: {text}");
    }
    assert!(text.lines().all(|line| line.len() <= 120), "{text}");
}

#[test]
fn tcp_and_what_is_passed_over_are_told() {
    let mut capture = Capture::default();
    let text = invite(1, "+966500000123", "+966115000000", "Content-Length: 0\r\n");
    let (head, tail) = text.split_at(90);
    capture.tcp([10, 0, 0, 7], 1000 + 90, tail);
    capture.tcp([10, 0, 0, 7], 1000, head);
    capture.tcp([10, 0, 0, 7], 1000 + 90, tail);
    capture.cut_short();
    let text = learn(&capture.bytes[..]).unwrap().to_string();
    assert!(text.contains("1 calls came to tcp://192.0.2.9:5060 (1)"), "{text}");
    assert!(text.contains("1 packets cut short by the capture"), "{text}");
    assert!(text.contains("path = \"private\"") && text.contains("country = \"SA\""), "{text}");
}

#[test]
fn captures_without_a_call_teach_nothing() {
    let mut capture = Capture::default();
    capture.udp([192, 0, 2, 1], "noise");
    capture.cut_short();
    let error = learn(&capture.bytes[..]).unwrap_err();
    assert!(
        matches!(error, LearnError::NothingLearned { packets: 2, messages: 0, truncated: 1, unreadable: 0 }),
        "{error}"
    );
    assert!(matches!(learn(&b"[[trunk]]"[..]), Err(LearnError::NotACapture)));
}

#[test]
fn no_cut_of_a_capture_makes_it_panic() {
    let mut capture = Capture::default();
    capture.udp([192, 0, 2, 1], &invite(1, "+447700900123", "+442079460200", ""));
    capture.tcp([192, 0, 2, 2], 1, &invite(2, "+447700900123", "+442079460200", ""));
    for end in (0..capture.bytes.len()).step_by(7) {
        let _ = learn(&capture.bytes[..end]);
        let mut broken = capture.bytes.clone();
        broken[end] ^= 0xff;
        let _ = learn(&broken[..]).map(|learned| learned.to_string());
    }
}

/// A pcap of raw IPv4 packets to 192.0.2.9:5060.
struct Capture {
    bytes: Vec<u8>,
}

impl Default for Capture {
    fn default() -> Self {
        let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(65_535u32.to_le_bytes());
        bytes.extend(101u32.to_le_bytes());
        Self { bytes }
    }
}

impl Capture {
    fn udp(&mut self, from: [u8; 4], text: &str) {
        let mut payload = vec![0x13, 0xc4, 0x13, 0xc4];
        payload.extend(u16::try_from(8 + text.len()).unwrap().to_be_bytes());
        payload.extend([0, 0]);
        payload.extend_from_slice(text.as_bytes());
        self.ip(from, 17, &payload);
    }

    fn tcp(&mut self, from: [u8; 4], sequence: u32, text: &str) {
        let mut payload = vec![0x13, 0xc4, 0x13, 0xc4];
        payload.extend(sequence.to_be_bytes());
        payload.extend([0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        payload.extend_from_slice(text.as_bytes());
        self.ip(from, 6, &payload);
    }

    fn ip(&mut self, from: [u8; 4], protocol: u8, payload: &[u8]) {
        let [high, low] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0];
        packet.extend(from);
        packet.extend([192, 0, 2, 9]);
        packet.extend_from_slice(payload);
        let length = u32::try_from(packet.len()).unwrap();
        self.record(&packet, length);
    }

    /// A packet of which the capture holds the first bytes only.
    fn cut_short(&mut self) {
        self.record(&[0x45, 0], 60);
    }

    fn record(&mut self, packet: &[u8], length: u32) {
        self.bytes.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        self.bytes.extend(u32::try_from(packet.len()).unwrap().to_le_bytes());
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend_from_slice(packet);
    }
}

fn invite(call_id: u32, from: &str, dialled: &str, more: &str) -> String {
    format!(
        "INVITE sip:{dialled}@gw SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{call_id}\r\n\
         From: <sip:{from}@c>;tag=1\r\nTo: <sip:{dialled}@gw>\r\nCall-ID: {call_id}\r\n\
         CSeq: 1 INVITE\r\n{more}\r\n"
    )
}
