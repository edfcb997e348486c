//! The parts of a run: each in a process of its own, which prints its figures as a line of JSON.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::rows::Rows;
use crate::{expiry, fill, index, restore};

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Writes verifications into an empty database.
    Fill,
    /// The same, with windows that end in one second.
    FillTogether,
    /// Brings back what `Fill` wrote, and takes calls.
    Restore,
    /// The index of pairs by itself.
    Index,
    /// Windows that end in one second, in the index by itself.
    ExpireIndex,
    /// The same through the application, over what `FillTogether` wrote.
    ExpireStored,
}

impl Part {
    /// Does the part and gives its figures as JSON.
    pub fn run(self, folder: &Path, count: u64) -> String {
        match self {
            Self::Fill => json(&fill::fill(folder, Rows::spread(count))),
            Self::FillTogether => json(&fill::fill(folder, Rows::together(count))),
            Self::Restore => json(&restore::restore(folder, Rows::spread(count))),
            Self::Index => json(&index::measure(Rows::spread(count))),
            Self::ExpireIndex => json(&expiry::of_the_index(Rows::together(count))),
            Self::ExpireStored => json(&expiry::through_the_store(folder, Rows::together(count))),
        }
    }

    /// Has another process of this program do it.
    pub fn in_its_own_process<T: DeserializeOwned>(self, folder: &Path, count: u64) -> T {
        eprintln!("{self:?} {count}");
        let name = self.to_possible_value().expect("no part is skipped").get_name().to_owned();
        let output = Command::new(env::current_exe().expect("this program has a path"))
            .args(["--part", &name, "--pending", &count.to_string(), "--data-dir"])
            .arg(folder)
            .stderr(Stdio::inherit())
            .output()
            .expect("this program starts once more");
        assert!(output.status.success(), "the part {self:?} failed: {}", output.status);
        serde_json::from_slice(&output.stdout).expect("a part prints its figures")
    }
}

fn json(figures: &impl Serialize) -> String {
    serde_json::to_string(figures).expect("figures become JSON")
}
