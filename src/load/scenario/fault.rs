//! Why a file is no scenario that can be played, and where in it.

use roxmltree::TextPos;

use super::template::KeywordError;
use crate::load::ladder::Escaped;

/// What is wrong with a scenario.
#[derive(Debug, thiserror::Error)]
#[error("line {line}, column {column}: {fault}")]
pub struct ScenarioError {
    /// Line of the file, from 1.
    pub line: u32,
    /// Character of the line, from 1.
    pub column: u32,
    /// What stands there.
    #[source]
    pub fault: Fault,
}

impl ScenarioError {
    pub(super) fn at(place: TextPos, fault: Fault) -> Self {
        Self { line: place.row, column: place.col, fault }
    }
}

/// Kinds of faults. All are the user's to mend.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// An attribute that is not known, or not supported.
    #[error(
        "<{}> has the attribute {}, which is not supported; it may have {supported}",
        Escaped(.element),
        Escaped(.name)
    )]
    Attribute {
        /// The element.
        element: String,
        /// The attribute.
        name: String,
        /// Attributes that it may have.
        supported: String,
    },
    /// `auth`.
    #[error("auth is not supported: a peer that asks for credentials cannot be called")]
    Authentication,
    /// A label that stands twice.
    #[error("the label {} stands twice", Escaped(.name))]
    DoubleLabel {
        /// Its name.
        name: String,
    },
    /// An element that is not known here, or not supported.
    #[error("<{}> is not supported in <{}>; use {supported}", Escaped(.name), Escaped(.parent))]
    Element {
        /// The element.
        name: String,
        /// What it stands in.
        parent: String,
        /// Elements that may stand there.
        supported: &'static str,
    },
    /// No message is sent.
    #[error("the scenario sends nothing; it needs a <send>")]
    Empty,
    /// `<recv>` with both a request and a response, or with neither.
    #[error("<recv> needs either request=\"METHOD\" or response=\"CODE\"")]
    Expectation,
    /// A keyword.
    #[error("{0}")]
    Keyword(#[source] KeywordError),
    /// The first line of a message.
    #[error("the message must begin with a method or SIP/2.0 as plain text, then a space")]
    Method,
    /// An attribute that an element must have.
    #[error("<{element}> needs the attribute {name}")]
    Missing {
        /// The element.
        element: &'static str,
        /// The attribute.
        name: &'static str,
    },
    /// A `<send>` without a text.
    #[error("<send> needs a message in <![CDATA[ .. ]]>")]
    NoMessage,
    /// A first message without `[call_id]`.
    #[error("the message needs Call-ID: [call_id], for that is how responses find their call")]
    NoCallId,
    /// An optional `<recv>` with nothing behind it that must come.
    #[error("an optional <recv> must stand before a <recv> that is not optional")]
    Optional,
    /// The outermost element.
    #[error("the file is no scenario: its outermost element is <{}>, not <scenario>", Escaped(.name))]
    Root {
        /// What it is.
        name: String,
    },
    /// A `<send>` with more than one text.
    #[error("<send> has a second <![CDATA[ .. ]]>; write the whole message in one")]
    SecondMessage,
    /// The first message is one that is received.
    #[error(
        "the scenario begins with <recv>, so it is a server's; only scenarios that begin with <send> can be played"
    )]
    Server,
    /// A variable, or what needs one.
    #[error("test needs a variable, and no action here sets one; use chance or a label alone")]
    Test,
    /// A timer that begins and does not end.
    #[error("the timer {} begins here and ends nowhere; a later step needs rtd=\"{}\"", Escaped(.name), Escaped(.name))]
    Timer {
        /// Its name.
        name: String,
    },
    /// More timers than are kept apart.
    #[error("more than {most} timers (rtd)")]
    TooManyTimers {
        /// The most.
        most: usize,
    },
    /// The label of SIPp for messages that a scenario has not.
    #[error("the label _unexp.main is not supported: a message that the scenario has not there loses the call")]
    UnexpectedLabel,
    /// A label that stands nowhere.
    #[error("there is no <label id=\"{}\"/>", Escaped(.name))]
    UnknownLabel {
        /// Its name.
        name: String,
    },
    /// An attribute's value.
    #[error("{name}=\"{}\" must be {wanted}", Escaped(.value))]
    Value {
        /// The attribute.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// No XML.
    #[error("no XML that can be read: {}", Escaped(&.0.to_string()))]
    Xml(#[source] roxmltree::Error),
}
