//! Any bytes are read without panic, and whatever is found lies inside them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringproof::sip::message::{CSeq, HeaderName, NameAddr, Scanner, Uri, Via, name_addr, uri::unescape};

const NAMES: [HeaderName; 12] = [
    HeaderName::CallId,
    HeaderName::ContentLength,
    HeaderName::CSeq,
    HeaderName::Diversion,
    HeaderName::From,
    HeaderName::HistoryInfo,
    HeaderName::Identity,
    HeaderName::PAssertedIdentity,
    HeaderName::Privacy,
    HeaderName::RemotePartyId,
    HeaderName::To,
    HeaderName::Via,
];

fuzz_target!(|bytes: &[u8]| {
    let mut scanner = Scanner::default();
    let Ok(message) = scanner.scan(bytes) else { return };
    assert!(message.body().len() <= bytes.len() && message.length() == bytes.len());
    for name in NAMES {
        for value in message.values(name) {
            assert!(bytes.as_ptr_range().contains(&value.as_ptr()) || value.is_empty());
            let _ = CSeq::parse(value);
            if let Some(via) = Via::parse(value) {
                let _ = (via.branch, via.rest_is_whole());
            }
            for item in name_addr::list(value) {
                let Some(item) = NameAddr::parse(item) else { continue };
                assert!(item.params.iter().count() <= value.len());
                if let Some(Uri::Sip(uri)) = Uri::parse(item.uri) {
                    let mut buffer = [0; 32];
                    let _ = unescape(uri.user, &mut buffer);
                }
            }
        }
    }
});
