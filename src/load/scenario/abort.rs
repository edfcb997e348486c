//! What ends a call that does not go as its scenario says, so that the peer does not wait for its rest.
//!
//! As SIPp: the ACK of a refusal, the ACK of an answer and a BYE, or a CANCEL, each sent once and not waited for. Pure.

use super::template::{Template, Words};

const ACK: &str = "\
ACK [last_Request_URI] SIP/2.0
[last_Via:]
Max-Forwards: 70
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: [last_cseq_number] ACK
Content-Length: 0

";

const ACK_ANSWER: &str = "\
ACK [last_Request_URI] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]-ack
Max-Forwards: 70
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: [last_cseq_number] ACK
Content-Length: 0

";

const BYE: &str = "\
BYE [last_Request_URI] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]-bye
Max-Forwards: 70
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: [last_cseq_number+1] BYE
Content-Length: 0

";

const CANCEL: &str = "\
CANCEL [last_Request_URI] SIP/2.0
[last_Via:]
Max-Forwards: 70
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: [last_cseq_number] CANCEL
Content-Length: 0

";

/// The messages.
#[derive(Debug)]
pub struct Aborts {
    ack: Template,
    ack_answer: Template,
    bye: Template,
    cancel: Template,
}

impl Default for Aborts {
    fn default() -> Self {
        Self { ack: template(ACK), ack_answer: template(ACK_ANSWER), bye: template(BYE), cancel: template(CANCEL) }
    }
}

impl Aborts {
    /// Those for a call whose last message was an INVITE or not, whose last response to an INVITE had this code, and
    /// which was answered before or not.
    pub(super) fn messages(&self, invites: bool, code: Option<u16>, answered: bool) -> Vec<&Template> {
        match (invites, code) {
            (true, Some(300..)) => vec![&self.ack],
            (true, Some(200..)) => vec![&self.ack_answer, &self.bye],
            (true, Some(_)) => vec![&self.cancel],
            (false, Some(_)) if answered => vec![&self.bye],
            _ => Vec::new(),
        }
    }
}

fn template(text: &str) -> Template {
    let words = Words { service: "", keys: &[], columns: None };
    let mut template = Template::default();
    for line in text.lines() {
        template.push(line, &words).expect("the keywords of these texts are all known");
        template.push_line_end();
    }
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_depends_on_how_far_the_peer_is() {
        let aborts = Aborts::default();
        let count = |invites, code, answered| aborts.messages(invites, code, answered).len();
        assert_eq!(aborts.messages(true, Some(503), false), [&aborts.ack]);
        assert_eq!(aborts.messages(true, Some(200), true), [&aborts.ack_answer, &aborts.bye]);
        assert_eq!(aborts.messages(true, Some(183), false), [&aborts.cancel]);
        assert_eq!(aborts.messages(false, Some(200), true), [&aborts.bye]);
        assert_eq!((count(true, None, false), count(false, Some(486), false), count(false, None, true)), (0, 0, 0));
    }
}
