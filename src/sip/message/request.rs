//! A request whose mandatory fields are there and readable (RFC 3261 8.1.1).

use std::fmt;

use super::{CSeq, HeaderName, Message, Method, NameAddr, StartLine, Via};

/// A request that can be judged.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The message it is read from.
    pub message: Message<'a>,
    /// Its method.
    pub method: Method,
    /// The Request-URI as written.
    pub uri: &'a [u8],
    /// The topmost Via.
    pub via: Via<'a>,
    /// From.
    pub from: NameAddr<'a>,
    /// Its tag; peers of RFC 2543 may send none.
    pub from_tag: Option<&'a [u8]>,
    /// To.
    pub to: NameAddr<'a>,
    /// Its tag, which a request within a dialog has.
    pub to_tag: Option<&'a [u8]>,
    /// Call-ID.
    pub call_id: &'a [u8],
    /// CSeq.
    pub cseq: CSeq<'a>,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URIs tell who calls whom.
        f.debug_struct("Request").field("method", &self.method).field("cseq", &self.cseq.number).finish_non_exhaustive()
    }
}

impl<'a> Request<'a> {
    /// Reads the mandatory fields. `None` where one is missing, repeated or broken, a tag is empty, or
    /// CSeq names another method than a known one.
    #[must_use]
    pub fn read(message: Message<'a>, via: Via<'a>) -> Option<Self> {
        let StartLine::Request { method, method_name, uri, .. } = message.start_line() else { return None };
        let from = NameAddr::parse(message.only(HeaderName::From)?)?;
        let to = NameAddr::parse(message.only(HeaderName::To)?)?;
        let call_id = message.only(HeaderName::CallId).filter(|value| !value.is_empty())?;
        let cseq = CSeq::parse(message.only(HeaderName::CSeq)?)?;
        let (from_tag, to_tag) = (tag(&from).ok()?, tag(&to).ok()?);
        // A method that nobody knows is told so, whatever CSeq makes of it (RFC 4475 3.1.2.18).
        let agree = method == Method::Other || cseq.method_name == method_name;
        agree.then_some(Self { message, method, uri, via, from, from_tag, to, to_tag, call_id, cseq })
    }
}

/// The tag of a value, if it has one.
///
/// # Errors
/// It is empty.
fn tag<'a>(value: &NameAddr<'a>) -> Result<Option<&'a [u8]>, ()> {
    match value.params.find("tag") {
        None => Ok(None),
        Some(tag) => tag.filter(|tag| !tag.is_empty()).map(Some).ok_or(()),
    }
}
