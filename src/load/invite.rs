//! An INVITE as text, for a call that is placed without a network between.

use std::net::SocketAddr;

use super::call::identity;
use super::request::Requests;
use super::target::Target;
use crate::e164::E164;
use crate::sip::flow::Transport;

/// The INVITE of a new call of `caller` to `dialled`, sent from `local` to `via`. `headers` are added; `From`,
/// `P-Asserted-Identity`, `Contact` and `Content-Type` replace what would stand there, and leave it out with an empty
/// value. None of them holds CR, LF or NUL.
#[must_use]
pub fn invite(
    (caller, dialled): (E164, E164),
    (local, via): (SocketAddr, SocketAddr),
    headers: &[(String, String)],
) -> String {
    let via = Target { transport: Transport::Udp, address: via };
    Requests::new(identity(), (caller, dialled), (local, via), headers).invite()
}
