//! The body of `POST /v1/verifications`, checked field by field.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::fields::{Faults, Fields, expected, text_fault};
use super::json::{self, Json, Malformed};
use super::phone;
use super::problem::FieldFault;
use crate::e164::E164;
use crate::matcher::verification::{Consent, Purpose, VerificationId};
use crate::verify::request::{Assurance, NewVerification};

const KNOWN: &str = "phone, country, ttl_seconds, purpose, consent, reference, metadata, minimum_assurance, locale, client, \
                     replaces";
const MAX_REFERENCE: usize = 128;
const MAX_DEVICE_ID: usize = 128;
const MAX_DOCUMENT: usize = 512;
const MAX_LOCALE: usize = 35;
const MAX_PAIRS: usize = 40;
const MAX_PAIRS_BYTES: usize = 4096;
const MAX_PAIR_NAME: usize = 40;

/// Why a body is no wish for a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// Not a JSON object: 400.
    Malformed(Malformed),
    /// Every fault of its fields, at least one: 422.
    Invalid(Vec<FieldFault>),
}

/// Reads the body of a create. `live` is the mode of the application.
pub(super) fn parse_create(body: &[u8], live: bool) -> Result<NewVerification, BodyFault> {
    let mut fields = Fields::new(json::object(body).map_err(BodyFault::Malformed)?, "");
    let mut faults = Faults::default();
    let f = &mut faults;
    let phone = phone(&mut fields, live, f);
    let ttl = fields.whole("ttl_seconds", &(60..=300), 120, f).map(Duration::from_secs);
    let (purpose, consent) = purpose(&mut fields, f);
    let reference = fields.text("reference", MAX_REFERENCE, "signup-88", f);
    let metadata = metadata(&mut fields, f);
    let minimum_assurance =
        fields.parsed("minimum_assurance", "one of \"A\", \"B\", \"C\" (D never verifies)", "B", f, |text| {
            Assurance::parse(text).filter(|level| *level != Assurance::D)
        });
    let locale = fields.parsed("locale", "a language tag (BCP 47) of at most 35 characters", "ar-SA", f, |text| {
        is_language_tag(text).then(|| text.to_owned())
    });
    let (client_ip, client_device_id) = client(&mut fields, f);
    let replaces = fields.parsed("replaces", "the id of a verification", "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V", f, |text| {
        text.parse::<VerificationId>().ok()
    });
    fields.finish(KNOWN, f);
    match phone {
        Some(phone) if faults.is_empty() => Ok(NewVerification {
            phone,
            ttl,
            purpose,
            consent,
            reference,
            metadata,
            minimum_assurance,
            locale,
            client_ip,
            client_device_id,
            replaces,
            api_key: None,
        }),
        _ => Err(BodyFault::Invalid(faults.into_vec())),
    }
}

/// Reads a body that may be left out and has no fields.
pub(super) fn parse_empty(body: &[u8]) -> Result<(), BodyFault> {
    if body.is_empty() {
        return Ok(());
    }
    let fields = Fields::new(json::object(body).map_err(BodyFault::Malformed)?, "");
    let mut faults = Faults::default();
    fields.finish("", &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(BodyFault::Invalid(faults.into_vec())) }
}

/// Reads the body of an erasure: a phone, as a create names it.
pub(super) fn parse_erasure(body: &[u8], live: bool) -> Result<E164, BodyFault> {
    let mut fields = Fields::new(json::object(body).map_err(BodyFault::Malformed)?, "");
    let mut faults = Faults::default();
    let phone = phone(&mut fields, live, &mut faults);
    fields.finish("phone, country", &mut faults);
    phone.filter(|_| faults.is_empty()).ok_or_else(|| BodyFault::Invalid(faults.into_vec()))
}

fn phone(fields: &mut Fields, live: bool, faults: &mut Faults) -> Option<E164> {
    if !fields.has("phone") {
        let detail = format!("is missing; the phone to be proven, for example {}", phone::EXAMPLE);
        faults.add("/phone", "missing", detail);
    }
    let asked = fields.has("country");
    let country = fields.parsed("country", "an ISO 3166 code in capitals", "SA", faults, phone::country);
    let text = fields.string("phone", phone::EXAMPLE, faults)?;
    let read = match country {
        Some(country) => phone::parse_written(&text, country, live),
        // Without the country that it needs, the phone cannot be judged.
        None if asked => return None,
        None => phone::parse(&text, live),
    };
    match read {
        Ok(phone) => Some(phone),
        Err((code, detail)) => {
            faults.add("/phone", code, detail);
            None
        }
    }
}

fn purpose(fields: &mut Fields, faults: &mut Faults) -> (Option<Purpose>, Option<Consent>) {
    const EXAMPLE: &str = "{\"document\":\"terms-2026-01\",\"sha256\":\"<64 hexadecimal digits>\"}";
    let named = Purpose::ALL.map(Purpose::as_str).join(", ");
    let asked = fields.has("purpose");
    let purpose = fields.parsed("purpose", &format!("one of {named}"), "login", faults, Purpose::parse);
    let given = fields.has("consent");
    let consent = fields.object("consent", EXAMPLE, faults).and_then(|mut inner| {
        let document = required_text(&mut inner, "document", "terms-2026-01", faults, |inner, faults| {
            inner.text("document", MAX_DOCUMENT, "terms-2026-01", faults)
        });
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let sha256 = required_text(&mut inner, "sha256", digest, faults, |inner, faults| {
            inner.parsed("sha256", "SHA-256 as 64 lower-case hexadecimal digits", digest, faults, |text| {
                let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                (text.len() == 64 && text.bytes().all(hex)).then(|| text.to_owned())
            })
        });
        inner.finish("document, sha256", faults);
        Some(Consent { document: document?, sha256: sha256? })
    });
    if purpose == Some(Purpose::Consent) && !given {
        faults.add("/consent", "missing", format!("is missing; purpose consent needs it, for example {EXAMPLE}"));
    }
    let other = purpose.is_some_and(|purpose| purpose != Purpose::Consent);
    if given && (other || !asked) {
        faults.add("/consent", "not_allowed", "goes with \"purpose\":\"consent\" alone; leave it out or say so");
    }
    (purpose, consent)
}

fn required_text(
    fields: &mut Fields,
    name: &str,
    example: &str,
    faults: &mut Faults,
    read: impl FnOnce(&mut Fields, &mut Faults) -> Option<String>,
) -> Option<String> {
    if fields.has(name) {
        return read(fields, faults);
    }
    faults.add(fields.pointer(name), "missing", format!("is missing, for example \"{example}\""));
    None
}

fn metadata(fields: &mut Fields, faults: &mut Faults) -> BTreeMap<String, String> {
    const EXAMPLE: &str = "{\"order\":\"1234\"}";
    let Some(inner) = fields.object("metadata", EXAMPLE, faults) else {
        return BTreeMap::new();
    };
    let mut pairs = BTreeMap::new();
    let pointers = Fields::new(BTreeMap::new(), "/metadata");
    let members = inner.into_members();
    if members.len() > MAX_PAIRS {
        let detail = format!("has {} pairs; at most {MAX_PAIRS} are allowed, for example {EXAMPLE}", members.len());
        faults.add("/metadata", "too_many", detail);
        return pairs;
    }
    for (name, value) in members {
        let pointer = pointers.pointer(&name);
        if let Some((code, detail)) = text_fault(&name, MAX_PAIR_NAME, "order") {
            faults.add(pointer, code, format!("the name {detail}"));
            continue;
        }
        match value {
            Json::Text(value) if value.chars().any(char::is_control) => {
                faults.add(pointer, "control_character", format!("has a control character; for example {EXAMPLE}"));
            }
            Json::Text(value) => {
                pairs.insert(name, value);
            }
            other => faults.add(pointer, "wrong_type", expected("a string", &other, "\"1234\"")),
        }
    }
    let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_PAIRS_BYTES {
        let detail = format!("has {bytes} bytes in names and values; at most {MAX_PAIRS_BYTES} are allowed");
        faults.add("/metadata", "too_long", format!("{detail}, for example {EXAMPLE}"));
    }
    pairs
}

fn client(fields: &mut Fields, faults: &mut Faults) -> (Option<IpAddr>, Option<String>) {
    let Some(mut inner) = fields.object("client", "{\"ip\":\"192.0.2.7\",\"device_id\":\"d-41\"}", faults) else {
        return (None, None);
    };
    let ip = inner.parsed("ip", "an IPv4 or IPv6 address without port or zone", "192.0.2.7", faults, |text| {
        // One form for each address, or ::ffff:192.0.2.7 would have a limit of its own.
        text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    });
    let device = inner.text("device_id", MAX_DEVICE_ID, "d-41", faults);
    inner.finish("ip, device_id", faults);
    (ip, device)
}

/// The shape of RFC 5646 2.1, not its registry: subtags of 1 to 8 letters and digits, the first of letters.
fn is_language_tag(text: &str) -> bool {
    let subtag = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let mut parts = text.split('-');
    let first = parts.next().unwrap_or_default();
    let private = matches!(first, "x" | "i" | "X" | "I");
    let language = (2..=8).contains(&first.len()) && first.bytes().all(|byte| byte.is_ascii_alphabetic());
    text.len() <= MAX_LOCALE && (language || (private && text.len() > 2)) && parts.all(subtag)
}

#[cfg(test)]
mod tests;
