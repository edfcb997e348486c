//! A scenario as it is played: its steps in their order.
//!
//! Pure data. Invariant: every place that a step names is a step or the end, and every timer has a name.

use std::time::Duration;

use super::template::Template;

/// A client scenario: the first message in it is one that is sent.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What its file calls it.
    pub name: String,
    /// At least one.
    pub steps: Vec<Step>,
    /// Methods of the requests that are sent, in the order of the steps.
    pub methods: Vec<String>,
    /// Names of the timers.
    pub timers: Vec<String>,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// The timer that begins with it.
    pub start_timer: Option<usize>,
    /// The timer that ends with it.
    pub stop_timer: Option<usize>,
    /// Where the call goes on, if not with the next step.
    pub jump: Option<Jump>,
    /// Where the call goes on when nothing comes in time.
    pub on_timeout: Option<usize>,
    /// Share of its messages that are lost on purpose, 0 to 1.
    pub lost: f64,
    /// Lines for the screen.
    pub lines: Vec<Template>,
}

/// Kinds of steps.
#[derive(Debug, Clone)]
pub enum Act {
    /// `<nop>`.
    Nothing,
    /// `<pause>`.
    Pause(Pause),
    /// `<recv>`.
    Receive(Receive),
    /// `<send>`.
    Send(Send),
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Send {
    /// The message.
    pub message: Template,
    /// What it is.
    pub kind: Kind,
    /// First pause before it is sent again over UDP.
    pub repeat: Option<Duration>,
}

/// What a message is, as far as numbers and timers depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ACK.
    Ack,
    /// CANCEL.
    Cancel,
    /// INVITE.
    Invite,
    /// Any other request.
    Other,
    /// A response.
    Response,
}

/// What is waited for.
#[derive(Debug, Clone)]
pub struct Receive {
    /// The message.
    pub expected: Expected,
    /// Whether it must come.
    pub optional: Optional,
    /// How long it is waited for, if not as long as for any.
    pub timeout: Option<Duration>,
}

/// A message that may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// A request of this method.
    Request(String),
    /// A response to any of the requests before.
    Response {
        /// Its status code.
        code: u16,
        /// How many of the scenario's methods stand before it.
        methods: usize,
    },
}

/// Whether a message must come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Optional {
    /// It must.
    No,
    /// It may come before the next that must.
    Yes,
    /// It may come from its step on.
    Global,
}

/// How long a call waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pause {
    /// Always as long.
    Fixed(Duration),
    /// Any time between two.
    Uniform(Duration, Duration),
}

/// Another step than the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jump {
    /// Where to; the number of steps is the end.
    pub to: usize,
    /// Share of the calls that go there, 0 to 1.
    pub chance: f64,
}
