//! Readers of an object's members that gather every fault with its pointer, so that a client sees them all at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::json::Json;
use super::problem::FieldFault;

/// Most faults told in one answer; a body of 64 KiB could hold thousands.
const MAX_FAULTS: usize = 50;
/// Most characters of a client's field name that an answer repeats.
const MAX_NAME: usize = 64;

/// Members that belong to later versions of this API.
const LATER: [&str; 8] =
    ["channel", "code", "code_length", "fallback", "max_checks", "number_type", "return_url", "webhook_url"];

/// The faults found so far.
#[derive(Default)]
pub(super) struct Faults(Vec<FieldFault>);

impl Faults {
    pub(super) fn add(&mut self, pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(FieldFault { pointer: pointer.into(), code, detail: detail.into() });
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<FieldFault> {
        self.0
    }
}

/// The members of one object, taken one by one; what is left at the end is unknown.
pub(super) struct Fields {
    members: BTreeMap<String, Json>,
    at: String,
}

impl Fields {
    /// `at` is the object's own pointer, empty for the whole body.
    pub(super) fn new(members: BTreeMap<String, Json>, at: impl Into<String>) -> Self {
        Self { members, at: at.into() }
    }

    /// Pointer of a member (RFC 6901).
    pub(super) fn pointer(&self, name: &str) -> String {
        let name: String = name.chars().take(MAX_NAME).collect();
        format!("{}/{}", self.at, name.replace('~', "~0").replace('/', "~1"))
    }

    /// A member as it is. `null` is no member.
    fn take(&mut self, name: &str) -> Option<Json> {
        self.members.remove(name).filter(|value| *value != Json::Null)
    }

    /// Whether the member is there. `null` is no member, and is forgotten.
    pub(super) fn has(&mut self, name: &str) -> bool {
        match self.members.get(name) {
            None => false,
            Some(Json::Null) => {
                self.members.remove(name);
                false
            }
            Some(_) => true,
        }
    }

    /// A string, unchecked but for its type.
    pub(super) fn string(&mut self, name: &str, example: &str, faults: &mut Faults) -> Option<String> {
        match self.take(name)? {
            Json::Text(text) => Some(text),
            other => {
                faults.add(self.pointer(name), "wrong_type", expected("a string", &other, &format!("\"{example}\"")));
                None
            }
        }
    }

    /// A string of 1 to `max` bytes without control characters.
    pub(super) fn text(&mut self, name: &str, max: usize, example: &str, faults: &mut Faults) -> Option<String> {
        let text = self.string(name, example, faults)?;
        match text_fault(&text, max, example) {
            None => Some(text),
            Some((code, detail)) => {
                faults.add(self.pointer(name), code, detail);
                None
            }
        }
    }

    /// A string that `read` understands. `wanted` completes "must be".
    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        wanted: &str,
        example: &str,
        faults: &mut Faults,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.string(name, example, faults)?;
        let value = read(&text);
        if value.is_none() {
            faults.add(self.pointer(name), "invalid", format!("must be {wanted}, for example \"{example}\""));
        }
        value
    }

    /// A whole number.
    pub(super) fn whole(
        &mut self,
        name: &str,
        range: &RangeInclusive<u64>,
        example: u64,
        faults: &mut Faults,
    ) -> Option<u64> {
        match self.take(name)? {
            Json::Whole(number) if range.contains(&number) => Some(number),
            Json::Whole(number) => {
                let detail =
                    format!("is {number}; {} to {} are allowed, for example {example}", range.start(), range.end());
                faults.add(self.pointer(name), "out_of_range", detail);
                None
            }
            other => {
                let detail = expected("a whole number", &other, &example.to_string());
                faults.add(self.pointer(name), "wrong_type", detail);
                None
            }
        }
    }

    /// An object.
    pub(super) fn object(&mut self, name: &str, example: &str, faults: &mut Faults) -> Option<Self> {
        let pointer = self.pointer(name);
        match self.take(name)? {
            Json::Object(members) => Some(Self::new(members, pointer)),
            other => {
                faults.add(pointer, "wrong_type", expected("an object", &other, example));
                None
            }
        }
    }

    /// The pairs of an object whose names are free.
    pub(super) fn into_members(self) -> BTreeMap<String, Json> {
        self.members
    }

    /// Refuses what nobody took. `known` lists the members that there are.
    pub(super) fn finish(self, known: &str, faults: &mut Faults) {
        for name in self.members.keys() {
            if self.at.is_empty() && LATER.contains(&name.as_str()) {
                let detail = format!("{name} is not in this version; leave it out");
                faults.add(self.pointer(name), "not_in_this_version", detail);
            } else {
                let shown: String = name.chars().take(MAX_NAME).collect();
                let detail = if known.is_empty() {
                    format!("{shown:?} is not known here; this takes no field")
                } else {
                    format!("{shown:?} is not known here; the fields are {known}")
                };
                faults.add(self.pointer(name), "unknown_field", detail);
            }
        }
    }
}

/// What is wrong with a text that must have 1 to `max` bytes and no control characters.
pub(super) fn text_fault(text: &str, max: usize, example: &str) -> Option<(&'static str, String)> {
    if text.is_empty() {
        Some(("too_short", format!("is empty; 1 to {max} bytes are allowed, for example \"{example}\"")))
    } else if text.len() > max {
        let length = text.len();
        Some(("too_long", format!("has {length} bytes; 1 to {max} are allowed, for example \"{example}\"")))
    } else if text.chars().any(char::is_control) {
        Some(("control_character", format!("has a control character; write plain text, for example \"{example}\"")))
    } else {
        None
    }
}

pub(super) fn expected(wanted: &str, found: &Json, example: &str) -> String {
    format!("must be {wanted} and is {}, for example {example}", found.kind())
}
