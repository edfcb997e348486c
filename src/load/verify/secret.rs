//! Secrets on the command line that are only pointed to: `env:NAME` and `file:PATH`, as in the configuration.
//!
//! Invariant: the content of a secret is in no error.

use std::io::Read;

use secrecy::SecretString;

/// Most bytes of a secret's file.
const MAX_FILE: u64 = 64 * 1024;

/// Why there is no secret. The user corrects the command line or what it points to.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment has no such variable, or an empty one.
    #[error("the environment variable {name} is not set; set it, or write file:PATH")]
    Variable {
        /// Its name.
        name: String,
    },
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    File {
        /// Its path.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file holds no secret.
    #[error("{path} is empty or longer than {MAX_FILE} bytes; it should hold the secret alone, on one line")]
    Content {
        /// Its path.
        path: String,
    },
}

/// The secret that `text` is or points to. `env` reads the environment.
///
/// # Errors
/// A [`SecretError`]: wrong use of the command.
pub fn resolve(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<SecretString, SecretError> {
    if let Some(name) = text.strip_prefix("env:") {
        let value = env(name).filter(|value| !value.is_empty());
        return value.map(SecretString::from).ok_or_else(|| SecretError::Variable { name: name.to_owned() });
    }
    let Some(path) = text.strip_prefix("file:") else { return Ok(text.into()) };
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    let mut content = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_string(&mut content).map_err(failed)?;
    let secret = content.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || content.len() as u64 > MAX_FILE {
        return Err(SecretError::Content { path: path.to_owned() });
    }
    Ok(secret.into())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_comes_from_where_it_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            format!("file:{}", path.display())
        };
        let (full, empty) = (write("full", "from the file\r\n"), write("empty", "\n"));
        let env = |name: &str| match name {
            "KEY" => Some("from outside".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let read = |text: &str| resolve(text, env).map(|secret| secret.expose_secret().to_owned());
        assert_eq!(read("plain").unwrap(), "plain");
        assert_eq!(read("env:KEY").unwrap(), "from outside");
        assert_eq!(read(&full).unwrap(), "from the file");
        assert!(matches!(read("env:NONE"), Err(SecretError::Variable { .. })));
        assert!(matches!(read("env:EMPTY"), Err(SecretError::Variable { .. })));
        assert!(matches!(read("file:/nowhere/at/all"), Err(SecretError::File { .. })));
        assert!(matches!(read(&empty), Err(SecretError::Content { .. })));
    }
}
