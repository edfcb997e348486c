//! Query parameters, read with every fault at once: unknown names, names that come twice, values that are no values.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::http::Uri;

use super::fields::Faults;
use super::problem::Problem;

/// Longest parameter value in bytes.
const MAX_VALUE: usize = 512;
/// Most entries on one page.
pub(super) const MAX_LIMIT: u32 = 100;
/// Entries on a page where the request asks for none.
const DEFAULT_LIMIT: u32 = 20;

/// The parameters of one request, taken one by one; what is left at the end is unknown.
pub(super) struct Parameters {
    values: BTreeMap<String, String>,
    faults: Faults,
}

impl Parameters {
    /// Splits and decodes the query (`application/x-www-form-urlencoded`). An empty value is a value.
    pub(super) fn new(uri: &Uri) -> Self {
        let (mut values, mut faults) = (BTreeMap::new(), Faults::default());
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if name.is_empty() && value.is_empty() {
                continue;
            }
            let pointer = pointer(&name);
            if value.len() > MAX_VALUE {
                faults.add(pointer, "too_long", format!("a value has at most {MAX_VALUE} bytes"));
            } else if values.insert(name.into_owned(), value.into_owned()).is_some() {
                faults.add(pointer, "repeated", "this parameter comes twice; send it once");
            }
        }
        Self { values, faults }
    }

    /// A parameter as `read` understands it; `None` for one that is not there or not understood. `accepted` tells what
    /// would be, with an example.
    pub(super) fn take<T>(&mut self, name: &str, accepted: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = self.values.remove(name)?;
        let read = read(&value);
        if read.is_none() {
            let shown: String = value.chars().take(64).collect();
            self.faults.add(pointer(name), "invalid", format!("{shown:?} is not accepted; {accepted}"));
        }
        read
    }

    /// A time in RFC 3339.
    pub(super) fn time(&mut self, name: &str) -> Option<SystemTime> {
        self.take(name, "write a time as 2026-01-31T08:00:00Z, with %2B for + in an offset", |text| {
            text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
        })
    }

    /// A yes or a no.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let accepted = format!("write {name}=true or {name}=false");
        self.take(name, &accepted, |text| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    /// How many entries a page is to have.
    pub(super) fn limit(&mut self) -> u32 {
        let accepted = format!("write a whole number from 1 to {MAX_LIMIT}, for example limit={DEFAULT_LIMIT}");
        self.take("limit", &accepted, |text| text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)))
            .unwrap_or(DEFAULT_LIMIT)
    }

    /// Adds a fault that only the endpoint can see.
    pub(super) fn fault(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        self.faults.add(pointer(name), code, detail);
    }

    /// Ends the reading: every fault, and every parameter that nobody took, at once. `known` are the names that this
    /// endpoint takes, for the message.
    pub(super) fn finish(mut self, known: &[&str]) -> Result<(), Problem> {
        let takes = match known {
            [] => "this endpoint takes no query parameter".to_owned(),
            names => format!("this endpoint takes {}", names.join(", ")),
        };
        for name in self.values.keys() {
            let shown: String = name.chars().take(64).collect();
            self.faults.add(pointer(name), "unknown_parameter", format!("{shown:?} is not known here; {takes}"));
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::fields(self.faults.into_vec())) }
    }
}

fn pointer(name: &str) -> String {
    format!("?{}", name.chars().take(64).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(query: &str, known: &[&str]) -> serde_json::Value {
        let mut parameters = Parameters::new(&format!("/v1/things?{query}").parse().unwrap());
        parameters.limit();
        parameters.time("created_after");
        let problem = parameters.finish(known).unwrap_err();
        serde_json::from_slice(&problem.document("req_1")).unwrap()
    }

    #[test]
    fn values_are_decoded_and_checked() {
        let uri = "/v1/things?limit=3&created_after=2026-01-31T08:00:00%2B02:00&phone=%2B966500000123".parse().unwrap();
        let mut parameters = Parameters::new(&uri);
        assert_eq!(parameters.limit(), 3);
        assert_eq!(parameters.take("phone", "", |text| Some(text.to_owned())).unwrap(), "+966500000123");
        assert_eq!(parameters.take("status", "", |text| Some(text.to_owned())), None);
        assert!(parameters.time("created_after").is_some());
        assert!(parameters.finish(&[]).is_ok());
        for plain in ["/v1/things", "/v1/things?", "/v1/things?&"] {
            assert!(Parameters::new(&plain.parse().unwrap()).finish(&[]).is_ok(), "{plain}");
        }
    }

    #[test]
    fn every_fault_is_told_at_once_by_its_parameter() {
        let document = told("limit=0&created_after=yesterday&x=1&limit=2", &["limit"]);
        let mut pointers: Vec<_> =
            document["errors"].as_array().unwrap().iter().map(|fault| fault["pointer"].as_str().unwrap()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["?created_after", "?limit", "?x"]);
        assert_eq!(document["status"], 422);
    }

    #[test]
    fn long_values_and_names_are_cut_in_the_answer() {
        let document = told(&format!("{}=1&limit={}", "n".repeat(5_000), "9".repeat(5_000)), &[]);
        assert!(document.to_string().len() < 2_000, "{document}");
    }
}
