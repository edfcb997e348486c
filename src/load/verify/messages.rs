//! The messages of the calls: INVITE and the ACK of its final response, with a number of its own for each call.

use std::net::SocketAddr;

use super::board::Pair;
use crate::e164::E164;
use crate::load::flood::Lengths;
use crate::load::flood::forms::{self, Entries, Forms};
use crate::load::flood::numbers::Numbers;
use crate::load::flood::template::{BRANCH, CALL_ID, CALLER, DIALLED, TAG, TO, Template};
use crate::load::request::{Identity, Requests};
use crate::load::slab::Key;
use crate::load::target::Target;

/// Digits that stand for the caller's and the dialled number until the message is cut.
const SAMPLES: [&str; 2] = ["966500000001", "966115000002"];

/// Writes messages.
pub(super) struct Messages {
    phones: Numbers,
    forms: Forms,
}

impl Messages {
    /// Messages that leave from `local` for `via`, each from the phone of its verification. `seed` is the run's own.
    pub(super) fn new((local, via): (SocketAddr, Target), phones: Numbers, seed: u64) -> Self {
        let identity = Identity {
            branch: BRANCH.to_owned(),
            ack_branch: format!("{BRANCH}-a"),
            bye_branch: String::new(),
            tag: TAG.to_owned(),
            call_id: CALL_ID.to_owned(),
        };
        let [caller, dialled] = SAMPLES
            .map(|digits| E164::from_digits(digits.as_bytes()).expect("the samples are numbers of an assigned code"));
        let requests = Requests::new(identity, (caller, dialled), (local, via), &[]);
        let cut = |text: &str| Template::new(&text.replace(SAMPLES[0], CALLER).replace(SAMPLES[1], DIALLED));
        let forms = Forms {
            invite: cut(&requests.invite()),
            ack_refusal: cut(&requests.ack_refusal(TO)),
            ack_answer: cut(&requests.ack_answer(None, TO)),
            identity: forms::Identity::new(seed, Lengths::Varied, local.ip()),
        };
        Self { phones, forms }
    }

    /// Appends the INVITE of a call, the same each time.
    pub(super) fn invite(&self, key: Key, pair: Pair, out: &mut Vec<u8>) {
        self.forms.invite(self.entries(key, pair), out);
    }

    /// Appends the ACK of a final response with this code and value of To.
    pub(super) fn ack(&self, key: Key, pair: Pair, response: (u16, &[u8]), out: &mut Vec<u8>) {
        self.forms.ack(self.entries(key, pair), response, out);
    }

    fn entries(&self, key: Key, pair: Pair) -> Entries {
        let number = pair.number;
        Entries { number, key, caller: self.phones.spread(number), dialled: pair.dialled.as_u64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::flood::reply::Reader;
    use crate::load::target::parse_via;

    const KEY: Key = Key { place: 7, generation: 9 };

    #[test]
    fn an_invite_goes_from_the_phone_to_its_number() {
        let text = written(|messages, pair, out| messages.invite(KEY, pair, out));
        assert!(text.starts_with("INVITE sip:+966115000050@127.0.0.1:5060 SIP/2.0\r\n"), "{text}");
        for piece in [
            ";branch=z9hG4bK000700000009",
            "\r\nFrom: <sip:+966500000123@127.0.0.1;user=phone>;tag=",
            "\r\nTo: <sip:+966115000050@127.0.0.1>\r\n",
            "\r\nP-Asserted-Identity: <sip:+966500000123@127.0.0.1>\r\n",
        ] {
            assert!(text.contains(piece), "{piece} is not in {text}");
        }
        assert!(!text.contains(SAMPLES[0]) && !text.contains(SAMPLES[1]) && !text.contains('\0'), "{text}");
    }

    #[test]
    fn an_ack_belongs_to_the_transaction_of_its_invite() {
        let invite = written(|messages, pair, out| messages.invite(KEY, pair, out));
        let ack = written(|messages, pair, out| messages.ack(KEY, pair, (486, b"<sip:x@y>;tag=z"), out));
        let via = |text: &str| text.lines().find(|line| line.starts_with("Via: ")).unwrap().to_owned();
        assert_eq!(via(&invite), via(&ack));
        assert!(ack.starts_with("ACK sip:+966115000050@") && ack.contains("\r\nTo: <sip:x@y>;tag=z\r\n"), "{ack}");
        let answered = written(|messages, pair, out| messages.ack(KEY, pair, (200, b"<sip:x@y>;tag=z"), out));
        assert_ne!(via(&invite), via(&answered));
    }

    #[test]
    fn a_response_leads_back_to_its_call() {
        let invite = written(|messages, pair, out| messages.invite(KEY, pair, out));
        let busy = invite.replacen("INVITE sip:+966115000050@127.0.0.1:5060 SIP/2.0", "SIP/2.0 486 Busy Here", 1);
        let reader = Reader::new();
        let reply = reader.read(busy.as_bytes()).unwrap();
        assert_eq!((reply.code, reply.key), (486, KEY));
    }

    fn written(write: impl FnOnce(&Messages, Pair, &mut Vec<u8>)) -> String {
        let phones = Numbers::new(&["+966500000123".parse().unwrap()]).unwrap();
        let ends = ("127.0.0.1:4000".parse().unwrap(), parse_via("udp:127.0.0.1:5060").unwrap());
        let messages = Messages::new(ends, phones, 1);
        let mut out = Vec::new();
        write(&messages, Pair { number: 0, dialled: "+966115000050".parse().unwrap() }, &mut out);
        String::from_utf8(out).unwrap()
    }
}
