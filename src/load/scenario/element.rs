//! One element of the file: its attributes read as what they stand for, and whatever is not known told with its place.

use std::time::Duration;

use roxmltree::{Node, TextPos};

use super::fault::{Fault, ScenarioError};

/// What begins a CDATA section.
const OPEN: &str = "<![CDATA[";

/// Longest time that an attribute may give: what a signed number of 32 bits holds in milliseconds, as in SIPp.
const MAX_MILLISECONDS: f64 = 2_147_483_647.0;

/// An element with its attributes and children.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a, 'input> {
    node: Node<'a, 'input>,
}

impl<'a, 'input> Element<'a, 'input> {
    pub(super) fn new(node: Node<'a, 'input>) -> Self {
        Self { node }
    }

    pub(super) fn name(self) -> &'input str {
        self.node.tag_name().name()
    }

    /// Where it begins.
    pub(super) fn place(self) -> TextPos {
        self.place_of(self.node.range().start)
    }

    /// Where a byte of the file stands.
    pub(super) fn place_of(self, byte: usize) -> TextPos {
        let document = self.node.document();
        // A place in an attribute with entities is not exact, and no place may split a character.
        document.text_pos_at(document.input_text().floor_char_boundary(byte))
    }

    pub(super) fn fault(self, fault: Fault) -> ScenarioError {
        ScenarioError::at(self.place(), fault)
    }

    pub(super) fn children(self) -> impl Iterator<Item = Self> {
        self.node.children().filter(Node::is_element).map(Self::new)
    }

    /// Refuses a child of another name than these.
    pub(super) fn unknown_child(self, child: Self, supported: &'static str) -> ScenarioError {
        child.fault(Fault::Element { name: child.name().to_owned(), parent: self.name().to_owned(), supported })
    }

    /// Refuses attributes of other names than these.
    pub(super) fn has_only(self, names: &[&str]) -> Result<(), ScenarioError> {
        let Some(attribute) = self.node.attributes().find(|attribute| !names.contains(&attribute.name())) else {
            return Ok(());
        };
        let place = self.place_of(attribute.range().start);
        if attribute.name() == "test" {
            return Err(ScenarioError::at(place, Fault::Test));
        }
        let supported = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let (element, name) = (self.name().to_owned(), attribute.name().to_owned());
        Err(ScenarioError::at(place, Fault::Attribute { element, name, supported }))
    }

    pub(super) fn text(self, name: &str) -> Option<&'a str> {
        self.node.attribute(name)
    }

    pub(super) fn needed(self, element: &'static str, name: &'static str) -> Result<&'a str, ScenarioError> {
        self.text(name).ok_or_else(|| self.fault(Fault::Missing { element, name }))
    }

    /// Where an attribute begins; where the element does, if there is none.
    pub(super) fn place_of_attribute(self, name: &str) -> TextPos {
        let attribute = self.node.attribute_node(name);
        attribute.map_or_else(|| self.place(), |attribute| self.place_of(attribute.range().start))
    }

    /// Where an attribute's value begins in the file, in bytes.
    pub(super) fn start_of_value(self, name: &str) -> usize {
        let attribute = self.node.attribute_node(name);
        attribute.map_or(self.node.range().start, |attribute| attribute.range_value().start)
    }

    pub(super) fn wrong(self, name: &'static str, value: &str, wanted: &'static str) -> ScenarioError {
        let fault = Fault::Value { name, value: value.to_owned(), wanted };
        ScenarioError::at(self.place_of_attribute(name), fault)
    }

    /// A time in milliseconds.
    pub(super) fn milliseconds(self, name: &'static str) -> Result<Option<Duration>, ScenarioError> {
        let Some(milliseconds) = self.number(name, MAX_MILLISECONDS, "milliseconds, 0 to 2147483647")? else {
            return Ok(None);
        };
        Ok(Some(Duration::from_secs_f64(milliseconds / 1_000.0)))
    }

    /// A share of all, given as a number from 0 to `whole`.
    pub(super) fn share(
        self,
        name: &'static str,
        whole: f64,
        wanted: &'static str,
    ) -> Result<Option<f64>, ScenarioError> {
        Ok(self.number(name, whole, wanted)?.map(|number| number / whole))
    }

    fn number(self, name: &'static str, most: f64, wanted: &'static str) -> Result<Option<f64>, ScenarioError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.trim().parse().ok().filter(|number: &f64| (0.0..=most).contains(number));
        number.map(Some).ok_or_else(|| self.wrong(name, text, wanted))
    }

    /// The CDATA section in the element, and where it begins in the file. Refuses a second one.
    pub(super) fn section(self) -> Result<Option<(&'input str, usize)>, ScenarioError> {
        let Some((section, start)) = self.section_behind(self.node.range().start) else { return Ok(None) };
        match self.section_behind(start + section.len()) {
            None => Ok(Some((section, start))),
            Some((_, second)) => Err(ScenarioError::at(self.place_of(second - OPEN.len()), Fault::SecondMessage)),
        }
    }

    /// The next CDATA section in the element behind a byte of the file. What stands in a comment is none.
    fn section_behind(self, byte: usize) -> Option<(&'input str, usize)> {
        let whole = self.node.document().input_text().get(..self.node.range().end)?;
        let is_comment =
            |place: usize| self.node.descendants().any(|node| node.is_comment() && node.range().contains(&place));
        let mut opens = whole.get(byte..)?.match_indices(OPEN).map(|(place, _)| byte + place);
        let start = opens.find(|place| !is_comment(*place))? + OPEN.len();
        let length = whole[start..].find("]]>")?;
        Some((&whole[start..start + length], start))
    }
}
