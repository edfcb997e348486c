//! Each field's faults by table, and arbitrary bodies.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn sandbox(body: &Value) -> Result<NewVerification, BodyFault> {
    parse_create(body.to_string().as_bytes(), false)
}

/// `(pointer, code)` of each fault, with the example that each detail must have checked on the way.
fn faults(body: &Value) -> Vec<(String, &'static str)> {
    match sandbox(body) {
        Ok(_) => Vec::new(),
        Err(BodyFault::Malformed(fault)) => panic!("{fault:?}"),
        Err(BodyFault::Invalid(faults)) => {
            assert!(!faults.is_empty());
            faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect()
        }
    }
}

#[test]
fn the_full_body_is_read() {
    let wish = sandbox(&json!({
        "phone": "+966500000123", "ttl_seconds": 300, "purpose": "consent",
        "consent": {"document": "terms", "sha256": SHA}, "reference": "signup-88", "metadata": {"order": "12", "empty": ""},
        "minimum_assurance": "B", "locale": "ar-SA", "client": {"ip": "::ffff:192.0.2.7", "device_id": "d-41"},
        "replaces": "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V",
    }))
    .unwrap();
    assert_eq!(wish.phone.to_string(), "+966500000123");
    assert_eq!(wish.ttl, Some(Duration::from_mins(5)));
    assert_eq!(wish.purpose, Some(Purpose::Consent));
    assert_eq!(wish.consent, Some(Consent { document: "terms".into(), sha256: SHA.into() }));
    assert_eq!(wish.reference.as_deref(), Some("signup-88"));
    assert_eq!(wish.metadata["order"], "12");
    assert_eq!(wish.minimum_assurance, Some(Assurance::B));
    assert_eq!(wish.locale.as_deref(), Some("ar-SA"));
    assert_eq!(wish.client_ip, Some([192, 0, 2, 7].into()));
    assert_eq!(wish.client_device_id.as_deref(), Some("d-41"));
    assert_eq!(wish.replaces.unwrap().to_string(), "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V");
}

#[test]
fn the_phone_alone_is_enough_and_null_is_as_left_out() {
    assert!(sandbox(&json!({"phone": "+12025550143"})).is_ok());
    let nulls = json!({"phone": "+12025550143", "ttl_seconds": null, "purpose": null, "consent": null,
        "reference": null, "metadata": null, "minimum_assurance": null, "locale": null, "client": null, "replaces": null});
    assert!(sandbox(&nulls).is_ok());
}

#[test]
fn a_country_lets_national_numbers_be_read() {
    let read = |phone: &str| sandbox(&json!({"phone": phone, "country": "SA"})).unwrap().phone.to_string();
    assert_eq!((read("0500000123"), read("٠٥٠٠٠٠٠١٢٣")), ("+966500000123".into(), "+966500000123".into()));
    assert_eq!(faults(&json!({"phone": "x", "country": "Saudi Arabia"})), [("/country".to_owned(), "invalid")]);
    assert!(sandbox(&json!({"phone": "+966500000123", "country": null})).is_ok());
}

#[test]
fn each_fault_has_its_pointer_and_code() {
    let long = "x".repeat(513);
    let pairs: serde_json::Map<_, _> = (0..41).map(|n| (n.to_string(), json!("x"))).collect();
    let cases = [
        (json!({"phone": null}), "/phone", "missing"),
        (json!({"phone": 966}), "/phone", "wrong_type"),
        (json!({"phone": "0500000123"}), "/phone", "no_plus"),
        (json!({"ttl_seconds": 59}), "/ttl_seconds", "out_of_range"),
        (json!({"ttl_seconds": 301}), "/ttl_seconds", "out_of_range"),
        (json!({"ttl_seconds": 120.0}), "/ttl_seconds", "wrong_type"),
        (json!({"ttl_seconds": -120}), "/ttl_seconds", "wrong_type"),
        (json!({"ttl_seconds": "120"}), "/ttl_seconds", "wrong_type"),
        (json!({"purpose": "Login"}), "/purpose", "invalid"),
        (json!({"purpose": 1}), "/purpose", "wrong_type"),
        (json!({"purpose": "consent"}), "/consent", "missing"),
        (json!({"consent": {"document": "d", "sha256": SHA}}), "/consent", "not_allowed"),
        (json!({"purpose": "login", "consent": {"document": "d", "sha256": SHA}}), "/consent", "not_allowed"),
        (json!({"purpose": "consent", "consent": "d"}), "/consent", "wrong_type"),
        (json!({"purpose": "consent", "consent": {"sha256": SHA}}), "/consent/document", "missing"),
        (json!({"purpose": "consent", "consent": {"document": long, "sha256": SHA}}), "/consent/document", "too_long"),
        (json!({"purpose": "consent", "consent": {"document": "d"}}), "/consent/sha256", "missing"),
        (
            json!({"purpose": "consent", "consent": {"document": "d", "sha256": SHA.to_uppercase()}}),
            "/consent/sha256",
            "invalid",
        ),
        (
            json!({"purpose": "consent", "consent": {"document": "d", "sha256": SHA, "url": "x"}}),
            "/consent/url",
            "unknown_field",
        ),
        (json!({"reference": ""}), "/reference", "too_short"),
        (json!({"reference": "x".repeat(129)}), "/reference", "too_long"),
        (json!({"reference": "a\nb"}), "/reference", "control_character"),
        (json!({"reference": 88}), "/reference", "wrong_type"),
        (json!({"metadata": []}), "/metadata", "wrong_type"),
        (json!({"metadata": pairs}), "/metadata", "too_many"),
        (json!({"metadata": {"a": "x".repeat(4096)}}), "/metadata", "too_long"),
        (json!({"metadata": {"a": 1}}), "/metadata/a", "wrong_type"),
        (json!({"metadata": {"a": null}}), "/metadata/a", "wrong_type"),
        (json!({"metadata": {"a": "\u{0}"}}), "/metadata/a", "control_character"),
        (json!({"metadata": {"": "x"}}), "/metadata/", "too_short"),
        (json!({"metadata": {"a/~": 1}}), "/metadata/a~1~0", "wrong_type"),
        (json!({"minimum_assurance": "D"}), "/minimum_assurance", "invalid"),
        (json!({"minimum_assurance": "b"}), "/minimum_assurance", "invalid"),
        (json!({"locale": "ar_SA"}), "/locale", "invalid"),
        (json!({"locale": ""}), "/locale", "invalid"),
        (json!({"locale": "a"}), "/locale", "invalid"),
        (json!({"locale": "ar-"}), "/locale", "invalid"),
        (json!({"locale": "en-abcdefgh-abcdefgh-abcdefgh-abcdefgh"}), "/locale", "invalid"),
        (json!({"client": "192.0.2.7"}), "/client", "wrong_type"),
        (json!({"client": {"ip": "192.0.2.7:80"}}), "/client/ip", "invalid"),
        (json!({"client": {"ip": "fe80::1%eth0"}}), "/client/ip", "invalid"),
        (json!({"client": {"device_id": "x".repeat(129)}}), "/client/device_id", "too_long"),
        (json!({"client": {"token": "x"}}), "/client/token", "unknown_field"),
        (json!({"replaces": "ver_1"}), "/replaces", "invalid"),
        (json!({"fallback": []}), "/fallback", "not_in_this_version"),
        (json!({"country": "sa"}), "/country", "invalid"),
        (json!({"country": 966}), "/country", "wrong_type"),
        (json!({"country": "SA", "phone": "05"}), "/phone", "not_in_numbering_plan"),
        (json!({"country": "SA", "phone": null}), "/phone", "missing"),
        (json!({"Phone": "+1"}), "/Phone", "unknown_field"),
    ];
    for (part, pointer, code) in cases {
        let mut body = json!({"phone": "+966500000123"});
        body.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        assert_eq!(faults(&body), [(pointer.to_owned(), code)], "{part}");
    }
}

#[test]
fn all_faults_come_at_once_and_their_number_is_bounded() {
    let body = json!({"ttl_seconds": 1, "purpose": "x", "locale": "", "nonsense": 1});
    let pointers: Vec<_> = faults(&body).into_iter().map(|(pointer, _)| pointer).collect();
    assert_eq!(pointers, ["/phone", "/ttl_seconds", "/purpose", "/locale", "/nonsense"]);
    let many: serde_json::Map<_, _> = (0..5000).map(|n| (format!("f{n}"), json!(1))).collect();
    assert_eq!(faults(&Value::Object(many)).len(), 50);
}

#[test]
fn language_tags_have_their_shape() {
    for tag in ["ar", "ar-SA", "zh-Hant-TW", "x-private", "i-klingon", "de-CH-1996", "sr-Latn-RS"] {
        assert!(is_language_tag(tag), "{tag}");
    }
    for tag in ["", "-", "x", "x-", "1a", "en--US", "en-toolonggg", "العربية"] {
        assert!(!is_language_tag(tag), "{tag}");
    }
}

#[test]
fn cancel_takes_no_field() {
    assert_eq!(parse_empty(b""), Ok(()));
    assert_eq!(parse_empty(b" {} "), Ok(()));
    assert!(matches!(parse_empty(b"{\"reason\":1}"), Err(BodyFault::Invalid(_))));
    assert!(matches!(parse_empty(b"x"), Err(BodyFault::Malformed(_))));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[+]?[0-9]{0,17}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name(), inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(KNOWN.split(", ").map(str::to_owned).collect::<Vec<_>>()),
        proptest::sample::select(vec!["ip", "device_id", "document", "sha256", "country"]).prop_map(str::to_owned),
        ".{0,9}",
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300), live: bool) {
        let _ = parse_create(&body, live);
        let _ = parse_empty(&body);
    }

    #[test]
    fn arbitrary_objects_are_taken_or_refused_with_a_fault(
        members in proptest::collection::btree_map(name(), value(), 0..8),
        live: bool,
    ) {
        let body: Value = members.into_iter().collect();
        match parse_create(body.to_string().as_bytes(), live) {
            Ok(wish) => prop_assert!((8..=15).contains(&(wish.phone.to_string().len() - 1))),
            Err(BodyFault::Malformed(fault)) => prop_assert!(false, "{:?}", fault),
            Err(BodyFault::Invalid(faults)) => prop_assert!((1..=50).contains(&faults.len())),
        }
    }
}
