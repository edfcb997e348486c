//! What a request gets by its form and method alone (RFC 3261 8.2.1, 8.2.2).

use super::response::Status;
use crate::sip::message::{Fault, HeaderName, Message, Method, Request, StartLine, Uri, Via};

/// What to do with a message.
#[derive(Debug, Clone, Copy)]
pub enum Dispatch<'a> {
    /// Nothing can or may be answered.
    Drop(Dropped),
    /// This final response at once.
    Respond(Via<'a>, Status),
    /// A call, with its Request-URI in its parts.
    Invite(Request<'a>, Uri<'a>),
    /// The end of a call that may still wait for its answer.
    Cancel(Request<'a>),
    /// A ping.
    Options(Request<'a>),
    /// The ACK to a final response: it is never answered (RFC 3261 17.1.1.3).
    Ack(Request<'a>),
}

/// Why a message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// An ACK that cannot be read. No ACK is ever answered.
    Ack,
    /// A response: this node asks nothing.
    Response,
    /// Without a readable Via there is no way back.
    NoVia,
}

/// Judges a message by its form and method. Bodies are not read, so neither 415 nor 406 is ever given.
#[must_use]
pub fn dispatch(message: Message<'_>) -> Dispatch<'_> {
    let StartLine::Request { method, version_2, uri, .. } = message.start_line() else {
        return Dispatch::Drop(Dropped::Response);
    };
    let Some(via) = message.values(HeaderName::Via).next().and_then(Via::parse) else {
        return Dispatch::Drop(Dropped::NoVia);
    };
    if method == Method::Ack {
        let readable = version_2 && message.fault().is_none();
        let request = readable.then(|| Request::read(message, via)).flatten();
        return request.map_or(Dispatch::Drop(Dropped::Ack), Dispatch::Ack);
    }
    if !version_2 {
        return Dispatch::Respond(via, Status::VersionNotSupported);
    }
    match message.fault() {
        Some(Fault::TooLarge) => return Dispatch::Respond(via, Status::MessageTooLarge),
        Some(Fault::Malformed) => return Dispatch::Respond(via, Status::BadRequest),
        None => {}
    }
    if !via.rest_is_whole() {
        return Dispatch::Respond(via, Status::BadRequest);
    }
    let Some(request) = Request::read(message, via).filter(|request| length_fits(&request.message)) else {
        return Dispatch::Respond(via, Status::BadRequest);
    };
    match method {
        Method::Cancel => Dispatch::Cancel(request),
        Method::Invite if request.to_tag.is_some() => Dispatch::Respond(via, Status::CallDoesNotExist),
        // Without a dialog there is none to end or change, whether the request names one or not.
        Method::Bye | Method::Info | Method::Update | Method::Prack => Dispatch::Respond(via, Status::CallDoesNotExist),
        Method::Register | Method::Subscribe | Method::Notify | Method::Message | Method::Publish | Method::Refer => {
            Dispatch::Respond(via, Status::MethodNotAllowed)
        }
        Method::Ack | Method::Other => Dispatch::Respond(via, Status::NotImplemented),
        Method::Invite | Method::Options => match Uri::parse(uri) {
            None => Dispatch::Respond(via, Status::BadRequest),
            Some(Uri::Other) => Dispatch::Respond(via, Status::UnsupportedUriScheme),
            Some(_) if message.values(HeaderName::Require).any(|value| !value.is_empty()) => {
                Dispatch::Respond(via, Status::BadExtension)
            }
            Some(uri) if method == Method::Invite => Dispatch::Invite(request, uri),
            Some(_) => Dispatch::Options(request),
        },
    }
}

/// Whether the body is as long as Content-Length says; what a datagram holds beyond it is ignored (RFC 3261 18.3).
fn length_fits(message: &Message<'_>) -> bool {
    let mut values = message.values(HeaderName::ContentLength);
    let Some(value) = values.next() else { return true };
    let number = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length: Option<usize> = number.and_then(|text| text.parse().ok());
    values.next().is_none() && length.is_some_and(|length| length <= message.body().len())
}
