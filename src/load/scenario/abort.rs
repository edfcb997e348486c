//! What ends a call that does not go as its scenario says, so that the peer does not wait for its rest.
//!
//! As SIPp: the ACK of a refusal, the ACK of an answer and a BYE, or a CANCEL, each sent once and not waited for. Pure.

use super::template::{Template, Words};

/// Via of a message that belongs to the transaction of the INVITE.
const SAME_VIA: &str = "[last_Via:]";

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
        Self {
            ack: template("ACK", SAME_VIA, "[last_cseq_number]"),
            ack_answer: template("ACK", &own_via("ack"), "[last_cseq_number]"),
            bye: template("BYE", &own_via("bye"), "[last_cseq_number+1]"),
            cancel: template("CANCEL", SAME_VIA, "[last_cseq_number]"),
        }
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

/// Via of a transaction of its own.
fn own_via(behind_branch: &str) -> String {
    format!("Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]-{behind_branch}")
}

fn template(method: &str, via: &str, cseq: &str) -> Template {
    let text = format!(
        "{method} [last_Request_URI] SIP/2.0\n{via}\nMax-Forwards: 70\n[last_From:]\n[last_To:]\n\
         Call-ID: [call_id]\nCSeq: {cseq} {method}\nContent-Length: 0\n\n"
    );
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
