//! Secrets that the file only points to: `env:NAME` and `file:path`.
//!
//! Invariant: the content of a secret is in no fault.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::fault::{Fault, Quoted};

/// Most bytes of a secret's file.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// Where secrets are kept outside the file.
pub(super) struct Sources<'c> {
    /// The environment.
    pub env: &'c dyn Fn(&str) -> Option<String>,
    /// What a relative path is relative to: the configuration's own directory.
    pub directory: PathBuf,
}

impl Sources<'_> {
    /// The secret that `text` is or points to.
    ///
    /// # Errors
    /// The fault to tell, without the secret.
    pub(super) fn resolve(&self, text: &str) -> Result<SecretString, Fault> {
        if let Some(name) = text.strip_prefix("env:") {
            return match (self.env)(name) {
                None => Err(Fault::UnsetVariable { name: Quoted::new(name) }),
                Some(value) if value.is_empty() => Err(Fault::EmptyVariable { name: Quoted::new(name) }),
                Some(value) => Ok(value.into()),
            };
        }
        if let Some(path) = text.strip_prefix("file:") {
            return read(&self.directory.join(path))
                .map(SecretString::from)
                .map_err(|reason| Fault::SecretFile { path: Quoted::new(path), reason });
        }
        Ok(text.into())
    }

    /// The text of the file at `path`.
    ///
    /// # Errors
    /// The fault to tell.
    pub(super) fn file(&self, path: &str) -> Result<SecretString, Fault> {
        read(&self.directory.join(path))
            .map(SecretString::from)
            .map_err(|reason| Fault::NamedFile { path: Quoted::new(path), reason })
    }
}

fn read(path: &Path) -> Result<String, String> {
    let plain = |error: io::Error| error.kind().to_string();
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(plain)?.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(plain)?.take(MAX_SECRET_FILE + 1).read_to_end(&mut bytes).map_err(plain)?;
    if bytes.len() as u64 > MAX_SECRET_FILE {
        return Err(format!("larger than {MAX_SECRET_FILE} bytes"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err("empty".to_owned()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_comes_from_where_it_is_kept() {
        let directory = std::env::temp_dir().join(format!("ringproof-secret-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("token"), "from the file\n").unwrap();
        std::fs::write(directory.join("empty"), "\n").unwrap();
        let env = |name: &str| match name {
            "TOKEN" => Some("from outside".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let sources = Sources { env: &env, directory: directory.clone() };
        let read = |text| sources.resolve(text).map(|secret| secret.expose_secret().to_owned());
        assert_eq!(read("plain").as_deref(), Ok("plain"));
        assert_eq!(read("env:TOKEN").as_deref(), Ok("from outside"));
        assert_eq!(read("file:token").as_deref(), Ok("from the file"));
        for broken in ["env:NONE", "env:EMPTY", "file:none", "file:empty", "file:."] {
            assert!(read(broken).is_err(), "{broken}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
