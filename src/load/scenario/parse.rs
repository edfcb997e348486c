//! From the file's text to a scenario.
//!
//! Owns which elements and attributes of SIPp are supported. Pure. Invariant: what is not supported is an error with
//! its place, so a scenario that is played means what it says.

use std::collections::HashMap;

use roxmltree::{Document, ParsingOptions, TextPos};

use super::element::Element;
use super::fault::{Fault, ScenarioError};
use super::step::{Act, Expected, Jump, Kind, Optional, Pause, Receive, Scenario, Send, Step};
use super::template::{Template, Words};
use super::text;

/// Elements and attributes that are read; a file with more is refused.
const MAX_NODES: u32 = 100_000;
/// Timers that are kept apart; each has a histogram.
const MAX_TIMERS: usize = 32;

/// Attributes that every step may have.
const COMMON: [&str; 6] = ["start_rtd", "rtd", "crlf", "lost", "next", "chance"];
const SEND: [&str; 2] = ["retrans", "ontimeout"];
const RECEIVE: [&str; 7] = ["request", "response", "optional", "timeout", "ontimeout", "auth", "rrs"];
const PAUSE: [&str; 2] = ["milliseconds", "distribution"];
const FIXED_PAUSE: [&str; 2] = ["distribution", "value"];
const UNIFORM_PAUSE: [&str; 3] = ["distribution", "min", "max"];

const STEPS: &str = "<send>, <recv>, <pause>, <nop>, <label>, <ResponseTimeRepartition> and <CallLengthRepartition>";
const YES_OR_NO: &str = "true or false";
/// Label at which SIPp goes on when a message comes that the scenario has not there.
const UNEXPECTED: &str = "_unexp.main";

/// Reads a scenario.
///
/// # Errors
/// A [`ScenarioError`]: the user must mend the file.
pub fn parse(xml: &str, words: &Words<'_>) -> Result<Scenario, ScenarioError> {
    // Every scenario names a DTD; none is read, and no entity comes from outside.
    let options = ParsingOptions { allow_dtd: true, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(xml, options)
        .map_err(|error| ScenarioError::at(error.pos(), Fault::Xml(error)))?;
    let root = Element::new(document.root_element());
    if root.name() != "scenario" {
        return Err(root.fault(Fault::Root { name: root.name().to_owned() }));
    }
    root.has_only(&["name"])?;
    let mut reading = Reading::new(words, root.text("name").unwrap_or("unnamed"));
    for element in root.children() {
        reading.element(root, element)?;
    }
    reading.finish(root)
}

/// A scenario of which a part is read.
struct Reading<'a> {
    words: &'a Words<'a>,
    scenario: Scenario,
    labels: HashMap<String, usize>,
    jumps: Vec<Pending>,
    /// Where each timer begins first, and whether it ends somewhere.
    timers: Vec<(Option<TextPos>, bool)>,
    /// The optional `<recv>` that has none behind it yet that must come.
    optional: Option<TextPos>,
    began: bool,
}

/// A label that a step names.
struct Pending {
    step: usize,
    label: String,
    place: TextPos,
    /// How many of the calls go there; `None` for those whose time is over.
    chance: Option<f64>,
}

impl<'a> Reading<'a> {
    fn new(words: &'a Words<'a>, name: &str) -> Self {
        let scenario = Scenario { name: name.to_owned(), steps: Vec::new(), methods: Vec::new(), timers: Vec::new() };
        Self {
            words,
            scenario,
            labels: HashMap::new(),
            jumps: Vec::new(),
            timers: Vec::new(),
            optional: None,
            began: false,
        }
    }

    fn element(&mut self, root: Element<'_, '_>, element: Element<'_, '_>) -> Result<(), ScenarioError> {
        let act = match element.name() {
            "send" => self.send(element)?,
            "recv" => self.receive(element)?,
            "pause" => Act::Pause(pause(element)?),
            "nop" => {
                element.has_only(&COMMON)?;
                Act::Nothing
            }
            "label" => return self.label(element),
            // The report has all latencies, so their classes mean nothing here.
            "ResponseTimeRepartition" | "CallLengthRepartition" => return element.has_only(&["value"]),
            _ => return Err(root.unknown_child(element, STEPS)),
        };
        if let (Some(place), false) = (self.optional, matches!(act, Act::Receive(_))) {
            return Err(ScenarioError::at(place, Fault::Optional));
        }
        if let Act::Receive(receive) = &act {
            let is_optional = receive.optional != Optional::No;
            self.optional = is_optional.then(|| self.optional.unwrap_or_else(|| element.place()));
        }
        let step = self.step(element, act)?;
        self.scenario.steps.push(step);
        Ok(())
    }

    fn send(&mut self, element: Element<'_, '_>) -> Result<Act, ScenarioError> {
        element.has_only(&[&SEND[..], &COMMON].concat())?;
        let (section, start) = element.section()?.ok_or_else(|| element.fault(Fault::NoMessage))?;
        let lines = text::lines(section).ok_or_else(|| element.fault(Fault::NoMessage))?;
        let first = lines.lines[0];
        let method = first.text.split_once(' ').map(|(method, _)| method).unwrap_or_default();
        if method.is_empty() || method.contains('[') {
            return Err(ScenarioError::at(element.place_of(start + first.offset), Fault::Method));
        }
        let kind = match method {
            "ACK" => Kind::Ack,
            "CANCEL" => Kind::Cancel,
            "INVITE" => Kind::Invite,
            "SIP/2.0" => Kind::Response,
            _ => Kind::Other,
        };
        if kind != Kind::Response {
            self.scenario.methods.push(method.to_owned());
        }

        let mut message = Template::default();
        for (index, line) in lines.lines.iter().enumerate() {
            if index > 0 {
                message.push_line_end();
            }
            message.push(line.text, self.words).map_err(|(offset, error)| {
                ScenarioError::at(element.place_of(start + line.offset + offset), Fault::Keyword(error))
            })?;
        }
        for _ in 0..lines.line_ends {
            message.push_line_end();
        }
        if !self.began && !message.names_call() {
            return Err(ScenarioError::at(element.place_of(start + first.offset), Fault::NoCallId));
        }
        self.began = true;
        let repeat = element.milliseconds("retrans")?.filter(|pause| !pause.is_zero());
        Ok(Act::Send(Send { message, kind, repeat }))
    }

    fn receive(&mut self, element: Element<'_, '_>) -> Result<Act, ScenarioError> {
        element.has_only(&[&RECEIVE[..], &COMMON].concat())?;
        if !self.began {
            return Err(element.fault(Fault::Server));
        }
        match element.text("auth") {
            None | Some("false") => {}
            Some(_) => return Err(ScenarioError::at(element.place_of_attribute("auth"), Fault::Authentication)),
        }
        let expected = match (element.text("request"), element.text("response")) {
            (Some(method), None) => Expected::Request(method.to_owned()),
            (None, Some(text)) => {
                let code = text.trim().parse().ok().filter(|code: &u16| (100..700).contains(code));
                let code = code.ok_or_else(|| element.wrong("response", text, "a status code, 100 to 699"))?;
                Expected::Response { code, methods: self.scenario.methods.len() }
            }
            _ => return Err(element.fault(Fault::Expectation)),
        };
        let optional = match element.text("optional") {
            None | Some("false") => Optional::No,
            Some("true") => Optional::Yes,
            Some("global") => Optional::Global,
            Some(other) => return Err(element.wrong("optional", other, "true, false or global")),
        };
        let timeout = element.milliseconds("timeout")?.filter(|timeout| !timeout.is_zero());
        Ok(Act::Receive(Receive { expected, optional, timeout }))
    }

    fn label(&mut self, element: Element<'_, '_>) -> Result<(), ScenarioError> {
        element.has_only(&["id"])?;
        let name = element.needed("label", "id")?;
        if name == UNEXPECTED {
            return Err(element.fault(Fault::UnexpectedLabel));
        }
        match self.labels.insert(name.to_owned(), self.scenario.steps.len()) {
            None => Ok(()),
            Some(_) => Err(element.fault(Fault::DoubleLabel { name: name.to_owned() })),
        }
    }

    /// What all steps may have.
    fn step(&mut self, element: Element<'_, '_>, act: Act) -> Result<Step, ScenarioError> {
        if let Some(other) = element.text("crlf").filter(|text| !matches!(*text, "true" | "false")) {
            return Err(element.wrong("crlf", other, YES_OR_NO));
        }
        let chance = element.share("chance", 1.0, "a share, 0 to 1")?.unwrap_or(1.0);
        for (name, chance) in [("next", Some(chance)), ("ontimeout", None)] {
            if let Some(label) = element.text(name) {
                let (step, place) = (self.scenario.steps.len(), element.place_of_attribute(name));
                self.jumps.push(Pending { step, label: label.to_owned(), place, chance });
            }
        }
        let start_timer = self.timer(element, "start_rtd")?;
        let stop_timer = self.timer(element, "rtd")?;
        let lost = element.share("lost", 100.0, "percent, 0 to 100")?.unwrap_or_default();
        let lines = self.lines(element)?;
        Ok(Step { act, start_timer, stop_timer, jump: None, on_timeout: None, lost, lines })
    }

    fn timer(&mut self, element: Element<'_, '_>, attribute: &str) -> Result<Option<usize>, ScenarioError> {
        // SIPp's first timer had no name.
        let Some(name) = element.text(attribute).map(|name| if name == "true" { "1" } else { name }) else {
            return Ok(None);
        };
        let names = &mut self.scenario.timers;
        let index = names.iter().position(|known| known == name).unwrap_or(names.len());
        if index == names.len() {
            if index == MAX_TIMERS {
                return Err(element.fault(Fault::TooManyTimers { most: MAX_TIMERS }));
            }
            names.push(name.to_owned());
            self.timers.push((None, false));
        }
        let (began, ends) = &mut self.timers[index];
        if attribute == "rtd" {
            *ends = true;
        } else {
            began.get_or_insert_with(|| element.place_of_attribute(attribute));
        }
        Ok(Some(index))
    }

    /// What the actions of a step write.
    fn lines(&self, element: Element<'_, '_>) -> Result<Vec<Template>, ScenarioError> {
        let mut lines = Vec::new();
        for child in element.children() {
            if child.name() != "action" {
                return Err(element.unknown_child(child, "<action>"));
            }
            child.has_only(&[])?;
            for action in child.children() {
                if !matches!(action.name(), "log" | "warning") {
                    return Err(child.unknown_child(action, "<log> and <warning>"));
                }
                action.has_only(&["message"])?;
                let mut line = Template::default();
                let start = action.start_of_value("message");
                line.push(action.needed("log", "message")?, self.words).map_err(|(offset, error)| {
                    ScenarioError::at(action.place_of(start + offset), Fault::Keyword(error))
                })?;
                lines.push(line);
            }
        }
        Ok(lines)
    }

    fn finish(mut self, root: Element<'_, '_>) -> Result<Scenario, ScenarioError> {
        if !self.began {
            return Err(root.fault(Fault::Empty));
        }
        if let Some(place) = self.optional {
            return Err(ScenarioError::at(place, Fault::Optional));
        }
        for Pending { step, label, place, chance } in self.jumps {
            let Some(&to) = self.labels.get(&label) else {
                return Err(ScenarioError::at(place, Fault::UnknownLabel { name: label }));
            };
            let step = &mut self.scenario.steps[step];
            match chance {
                Some(chance) => step.jump = Some(Jump { to, chance }),
                None => step.on_timeout = Some(to),
            }
        }
        for ((began, ends), name) in self.timers.iter().zip(&self.scenario.timers) {
            if let (Some(place), false) = (began, ends) {
                return Err(ScenarioError::at(*place, Fault::Timer { name: name.clone() }));
            }
        }
        Ok(self.scenario)
    }
}

fn pause(element: Element<'_, '_>) -> Result<Pause, ScenarioError> {
    let has_only = |names: &[&str]| element.has_only(&[names, &COMMON].concat());
    let needed = |name| {
        let time = element.milliseconds(name)?;
        time.ok_or_else(|| element.fault(Fault::Missing { element: "pause", name }))
    };
    let is_uniform = element.text("min").is_some() || element.text("max").is_some();
    match element.text("distribution") {
        None if !is_uniform => {
            has_only(&PAUSE)?;
            Ok(Pause::Fixed(element.milliseconds("milliseconds")?.unwrap_or_default()))
        }
        Some("fixed") => {
            has_only(&FIXED_PAUSE)?;
            Ok(Pause::Fixed(needed("value")?))
        }
        None | Some("uniform") => {
            has_only(&UNIFORM_PAUSE)?;
            let (least, most) = (needed("min")?, needed("max")?);
            if most < least {
                return Err(element.wrong("max", element.text("max").unwrap_or_default(), "no less than min"));
            }
            Ok(Pause::Uniform(least, most))
        }
        Some(other) => Err(element.wrong("distribution", other, "fixed or uniform")),
    }
}

#[cfg(test)]
mod tests;
