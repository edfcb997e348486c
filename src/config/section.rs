//! A reader over the spanned TOML tree: one section, its keys one by one.
//!
//! Owns the faults that any key can have: unknown, missing, of a wrong type, out of range, not one of the words. Does
//! not know what a key means. Invariant: whatever yields [`Entry::Broken`] has told its fault, so its reader stays
//! silent about it.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Configuration;
use super::errors::{Faults, Span};
use super::fault::{Fault, Quoted};
use super::nearest::nearest;
use super::secret::Sources;

/// What a whole reading shares.
pub(super) struct Reading<'c> {
    /// The configuration of the node that runs, at a reload.
    pub running: Option<&'c Configuration>,
    /// What is wrong so far.
    pub faults: Faults<'c>,
    /// Where secrets are kept outside the file.
    pub secrets: Sources<'c>,
}

/// A section's name as the operator writes it, and its keys, each with an example of its value.
pub(super) struct Shape {
    pub title: &'static str,
    pub keys: &'static [(&'static str, &'static str)],
}

impl Shape {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|(name, _)| *name)
    }

    pub(super) fn example(&self, key: &str) -> &'static str {
        self.keys.iter().find(|(name, _)| *name == key).map_or("..", |(_, example)| *example)
    }
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry<T> {
    /// Nothing.
    Absent,
    /// Something wrong; its fault is told.
    Broken,
    /// A value, and where.
    Read(T, Span),
}

impl<T> Entry<T> {
    /// The value, or `default` where nothing stands; `None` where it is broken.
    pub(super) fn or(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Broken => None,
            Self::Read(value, _) => Some(value),
        }
    }

    /// Where it stands, else `elsewhere`.
    pub(super) fn place(&self, elsewhere: &Span) -> Span {
        if let Self::Read(_, span) = self { span.clone() } else { elsewhere.clone() }
    }

    /// Reads on; `None` from `read` means that it told a fault.
    pub(super) fn and_then<U>(self, read: impl FnOnce(T, &Span) -> Option<U>) -> Entry<U> {
        match self {
            Self::Absent => Entry::Absent,
            Self::Broken => Entry::Broken,
            Self::Read(value, span) => match read(value, &span) {
                Some(value) => Entry::Read(value, span),
                None => Entry::Broken,
            },
        }
    }
}

/// A text, and where.
#[derive(Debug, Clone)]
pub(super) struct Word<'c> {
    pub text: &'c str,
    pub span: Span,
}

/// The texts of a list. An element of another type is told and left out.
#[derive(Debug, Clone, Default)]
pub(super) struct Words<'c> {
    pub words: Vec<Word<'c>>,
    /// Whether none was left out.
    pub whole: bool,
}

enum Body<'c> {
    There(&'c DeTable<'c>),
    Absent,
    Broken,
}

/// One section while it is read.
pub(super) struct Section<'c> {
    body: Body<'c>,
    /// The header, or the inline table.
    pub span: Span,
    shape: &'static Shape,
    /// Known keys that an unknown one probably means.
    misspelt: Vec<&'static str>,
    reading: &'c Reading<'c>,
}

impl<'c> Section<'c> {
    /// Opens a table and tells its unknown keys.
    pub(super) fn new(table: &'c DeTable<'c>, span: Span, shape: &'static Shape, reading: &'c Reading<'c>) -> Self {
        let mut misspelt = Vec::new();
        for key in table.keys().filter(|key| shape.names().all(|name| name != key.get_ref())) {
            let absent = shape.names().filter(|name| !table.contains_key(*name));
            let meant = nearest(key.get_ref(), absent).or_else(|| nearest(key.get_ref(), shape.names()));
            misspelt.extend(meant);
            let fault = Fault::UnknownKey {
                key: Quoted::new(key.get_ref()),
                section: shape.title,
                nearest: meant,
                known: shape.names().collect(),
            };
            reading.faults.tell(&key.span(), fault);
        }
        Self { body: Body::There(table), span, shape, misspelt, reading }
    }

    fn without_body(&self, body: Body<'c>, shape: &'static Shape) -> Self {
        Self { body, span: self.span.clone(), shape, misspelt: Vec::new(), reading: self.reading }
    }

    fn value(&self, key: &'static str) -> Entry<&'c DeValue<'c>> {
        debug_assert!(self.shape.names().any(|name| name == key), "{key} is not among the keys of its section");
        let table = match self.body {
            Body::There(table) => table,
            Body::Absent => return Entry::Absent,
            Body::Broken => return Entry::Broken,
        };
        match table.get(key) {
            Some(value) => Entry::Read(value.get_ref(), value.span()),
            None if self.misspelt.contains(&key) => Entry::Broken,
            None => Entry::Absent,
        }
    }

    /// Whether nothing stands under `key`, not even misspelt.
    pub(super) fn lacks(&self, key: &'static str) -> bool {
        matches!(self.value(key), Entry::Absent)
    }

    pub(super) fn tell(&self, span: &Span, fault: Fault) {
        self.reading.faults.tell(span, fault);
    }

    fn wrong_type(&self, span: &Span, key: &'static str, wanted: &'static str, value: &DeValue<'_>) {
        let found = match value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.tell(span, Fault::WrongType { key, wanted, found, example: self.shape.example(key) });
    }

    /// A text in quotes.
    pub(super) fn text(&self, key: &'static str) -> Entry<&'c str> {
        self.value(key).and_then(|value, span| {
            let text = value.as_str();
            if text.is_none() {
                self.wrong_type(span, key, "a text in quotes", value);
            }
            text
        })
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> Entry<bool> {
        self.value(key).and_then(|value, span| {
            let truth = value.as_bool();
            if truth.is_none() {
                self.wrong_type(span, key, "true or false", value);
            }
            truth
        })
    }

    /// An integer within `range`.
    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<u32>) -> Entry<u32> {
        self.value(key).and_then(|value, span| self.to_integer(key, value, span, range))
    }

    fn to_integer(
        &self,
        key: &'static str,
        value: &DeValue<'_>,
        span: &Span,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let Some(integer) = value.as_integer() else {
            self.wrong_type(span, key, "an integer", value);
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
        if number.is_none() {
            let (low, high) = (range.start().to_string(), range.end().to_string());
            self.tell(span, Fault::OutOfRange { key, value: Quoted::new(integer.to_string()), low, high });
        }
        number
    }

    /// An integer within `range`, or a text.
    pub(super) fn integer_or_text(&self, key: &'static str, range: RangeInclusive<u32>) -> Entry<Either<'c>> {
        self.value(key).and_then(|value, span| match value {
            DeValue::Integer(_) => self.to_integer(key, value, span, range).map(Either::Integer),
            DeValue::String(text) => Some(Either::Text(text)),
            _ => {
                self.wrong_type(span, key, "a text in quotes", value);
                None
            }
        })
    }

    /// An integer of any size as it stands, or a table of `shape`.
    pub(super) fn integer_or_table(
        &self,
        key: &'static str,
        shape: &'static Shape,
    ) -> Entry<Result<String, Section<'c>>> {
        self.value(key).and_then(|value, span| match value {
            DeValue::Integer(integer) => Some(Ok(integer.to_string())),
            DeValue::Table(table) => Some(Err(Section::new(table, span.clone(), shape, self.reading))),
            _ => {
                self.wrong_type(span, key, "an integer or a table", value);
                None
            }
        })
    }

    /// One of the words `now`. Those of `later` are known and refused.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        now: &[(&'static str, T)],
        later: &[&'static str],
    ) -> Entry<T> {
        self.text(key).and_then(|text, span| self.pick(key, &Word { text, span: span.clone() }, now, later))
    }

    /// The meaning of a word of a list, as [`Section::choice`].
    pub(super) fn pick<T: Copy>(
        &self,
        key: &'static str,
        word: &Word<'_>,
        now: &[(&'static str, T)],
        later: &[&'static str],
    ) -> Option<T> {
        if let Some((_, meaning)) = now.iter().find(|(name, _)| *name == word.text) {
            return Some(*meaning);
        }
        let words: Vec<&'static str> = now.iter().map(|(name, _)| *name).collect();
        let fault = if later.contains(&word.text) {
            let instead = match words.as_slice() {
                [only] => format!("write `{only}`"),
                [rest @ .., last] => format!("write `{}` or `{last}`", rest.join("`, `")),
                [] => "remove it".to_owned(),
            };
            Fault::NotInThisVersion { what: format!("{key} = \"{}\"", word.text), instead }
        } else {
            let nearest = nearest(word.text, words.iter().copied());
            Fault::UnknownWord { key, word: Quoted::new(word.text), nearest, words }
        };
        self.tell(&word.span, fault);
        None
    }

    /// A list of texts.
    pub(super) fn words(&self, key: &'static str) -> Entry<Words<'c>> {
        self.value(key).and_then(|value, span| {
            let Some(list) = value.as_array() else {
                self.wrong_type(span, key, "a list of texts in quotes", value);
                return None;
            };
            let mut words = Words { words: Vec::with_capacity(list.len()), whole: true };
            for element in list {
                if let Some(text) = element.get_ref().as_str() {
                    words.words.push(Word { text, span: element.span() });
                } else {
                    words.whole = false;
                    self.wrong_type(&element.span(), key, "a list of texts in quotes", element.get_ref());
                }
            }
            Some(words)
        })
    }

    /// As [`Section::words`], and at least one.
    pub(super) fn some_words(&self, key: &'static str) -> Entry<Words<'c>> {
        self.words(key).and_then(|words, span| {
            if words.words.is_empty() && words.whole {
                self.tell(span, Fault::Empty { key, example: self.shape.example(key) });
                return None;
            }
            Some(words)
        })
    }

    /// The elements of a list, of whatever type.
    pub(super) fn elements(&self, key: &'static str) -> Entry<&'c [Spanned<DeValue<'c>>]> {
        self.value(key).and_then(|value, span| {
            let list = value.as_array();
            if list.is_none() {
                self.wrong_type(span, key, "a list of texts in quotes", value);
            }
            list.map(|list| &**list)
        })
    }

    /// The table that an element is.
    pub(super) fn element_table(
        &self,
        element: &'c Spanned<DeValue<'c>>,
        shape: &'static Shape,
    ) -> Option<Section<'c>> {
        let table = element.get_ref().as_table()?;
        Some(Section::new(table, element.span(), shape, self.reading))
    }

    /// An element that is neither text nor anything else known.
    pub(super) fn wrong_element(&self, key: &'static str, element: &Spanned<DeValue<'_>>) {
        self.wrong_type(&element.span(), key, "a list of texts in quotes", element.get_ref());
    }

    /// Tells that `key` has to be there.
    pub(super) fn required<T>(&self, key: &'static str, entry: Entry<T>) -> Option<T> {
        match entry {
            Entry::Read(value, _) => Some(value),
            Entry::Broken => None,
            Entry::Absent => {
                let (section, example) = (self.shape.title, self.shape.example(key));
                self.tell(&self.span, Fault::Missing { key, section, example });
                None
            }
        }
    }

    /// Refuses a key that a later version brings.
    pub(super) fn later(&self, key: &'static str) {
        if let Entry::Read(_, span) = self.value(key) {
            let fault = Fault::NotInThisVersion { what: key.to_owned(), instead: "remove it".to_owned() };
            self.tell(&span, fault);
        }
    }

    /// The table under `key`; where there is none, a section in which nothing stands.
    pub(super) fn table(&self, key: &'static str, shape: &'static Shape) -> Section<'c> {
        match self.value(key) {
            Entry::Absent => self.without_body(Body::Absent, shape),
            Entry::Broken => self.without_body(Body::Broken, shape),
            Entry::Read(DeValue::Table(table), span) => Section::new(table, span, shape, self.reading),
            Entry::Read(DeValue::Array(list), span) => {
                if let Some((DeValue::Table(table), inner)) = list.first().map(|first| (first.get_ref(), first.span()))
                {
                    let right = shape.title.to_owned();
                    self.tell(&span, Fault::Brackets { right, why: "with single brackets and once" });
                    return Section::new(table, inner, shape, self.reading);
                }
                self.wrong_type(&span, key, "a table", &DeValue::Array(list.clone()));
                self.without_body(Body::Broken, shape)
            }
            Entry::Read(value, span) => {
                self.wrong_type(&span, key, "a table", value);
                self.without_body(Body::Broken, shape)
            }
        }
    }

    /// The tables under `key`, in file order. `None` where they are unreadable, which is told.
    pub(super) fn tables(&self, key: &'static str, shape: &'static Shape) -> Option<Vec<Section<'c>>> {
        match self.value(key) {
            Entry::Absent => Some(Vec::new()),
            Entry::Broken => None,
            Entry::Read(DeValue::Table(table), span) => {
                let right = shape.title.to_owned();
                self.tell(&span, Fault::Brackets { right, why: "with double brackets: there may be several" });
                Some(vec![Section::new(table, span, shape, self.reading)])
            }
            Entry::Read(value, span) => {
                let tables = value.as_array().and_then(|list| {
                    let open = |element: &'c Spanned<DeValue<'c>>| {
                        let table = element.get_ref().as_table()?;
                        Some(Section::new(table, element.span(), shape, self.reading))
                    };
                    list.iter().map(open).collect()
                });
                if tables.is_none() {
                    self.wrong_type(&span, key, "a list of tables", value);
                }
                tables
            }
        }
    }

    /// Tells a setting that differs from the node that runs and that only a restart changes. `was` gives the setting of
    /// that node and how it is written.
    pub(super) fn stays<T: PartialEq>(
        &self,
        span: &Span,
        key: &'static str,
        value: &T,
        was: impl FnOnce(&Configuration) -> (T, String),
    ) {
        let Some((running, was)) = self.reading.running.map(was) else { return };
        if running != *value {
            self.tell(span, Fault::NeedsRestart { key, was });
        }
    }

    /// Where secrets are kept outside the file.
    pub(super) fn secrets(&self) -> &'c Sources<'c> {
        &self.reading.secrets
    }

    /// The line in which `span` begins.
    pub(super) fn line(&self, span: &Span) -> usize {
        self.reading.faults.line(span)
    }
}

/// A value of one of two types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Either<'c> {
    Integer(u32),
    Text(&'c str),
}
