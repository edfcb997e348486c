//! An entry as a line of an export: JSON, or comma-separated values (RFC 4180), with the time of day at a place.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::chain::Entry;

/// First line of an export as comma-separated values.
pub const CSV_HEADER: &str = "seq,at,local,kind,data,previous,hash\r\n";

/// One line of JSON: the entry, its hash and the local time. The hash is over all that stands before `,"hash"`, and `}`.
#[must_use]
pub fn json_line(text: &str, hash: &[u8], zone: &TimeZone) -> String {
    let members = text.strip_suffix('}').unwrap_or(text);
    let local = Entry::parse(text).map(|entry| local(entry.at, zone)).unwrap_or_default();
    format!("{members},\"hash\":\"{}\",\"local\":\"{local}\"}}\n", hex::encode(hash))
}

/// One line of comma-separated values; an entry that cannot be read is left out.
#[must_use]
pub fn csv_line(text: &str, hash: &[u8], zone: &TimeZone) -> Option<String> {
    let entry = Entry::parse(text)?;
    let mut line = String::new();
    let data = entry.data.get().replace('"', "\"\"");
    let (seq, at, local, kind, previous) = (entry.seq, entry.at, local(entry.at, zone), entry.kind, entry.previous);
    // Writing to a `String` does not fail.
    let _ = write!(line, "{seq},{at},{local},{kind},\"{data}\",{previous},{}\r\n", hex::encode(hash));
    Some(line)
}

/// The entry and the hash of a line that [`json_line`] wrote.
#[must_use]
pub fn read_json_line(line: &str) -> Option<(String, Vec<u8>)> {
    let (members, rest) = line.rsplit_once(",\"hash\":\"")?;
    let (hash, _) = rest.split_once('"')?;
    Some((format!("{members}}}"), hex::decode(hash).ok()?))
}

/// A time with the offset of a place, RFC 3339.
fn local(at: &str, zone: &TimeZone) -> String {
    let Ok(at) = at.parse::<Timestamp>() else { return String::new() };
    at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::chain::Chain;
    use super::super::kind::Kind;
    use super::*;

    #[test]
    fn lines_hold_the_entry_whole_and_the_time_at_the_place() {
        let at = UNIX_EPOCH + Duration::from_millis(1_764_000_000_125);
        let entry = Chain::default().append(at, Kind::KeyUsed, r#"{"key":"a,\"b","x":",\"hash\":\"00\""}"#);
        let zone = TimeZone::fixed(jiff::tz::offset(3));
        let line = json_line(&entry.text, &entry.hash, &zone);
        assert!(line.ends_with("\"local\":\"2025-11-24T19:00:00.125+03:00\"}\n"), "{line}");
        assert_eq!(read_json_line(&line).unwrap(), (entry.text.clone(), entry.hash.to_vec()));
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        let csv = csv_line(&entry.text, &entry.hash, &zone).unwrap();
        assert!(csv.starts_with("1,2025-11-24T16:00:00.125Z,2025-11-24T19:00:00.125+03:00,key.used,\"{\"\"key\"\""));
        assert_eq!(csv_line("no entry", &entry.hash, &zone), None);
    }
}
