//! Between rows and values: what a column holds for a verification, an id, a time.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use ulid::Ulid;

use crate::call::assurance::{Assurance, Reasons};
use crate::e164::E164;
use crate::matcher::phone_key::PhoneKey;
use crate::matcher::verification::{Consent, Purpose, Status, Verification, VerificationId};
use crate::outbox::delivery::{DeliveryState, EndpointId};
use crate::outbox::endpoint::DisableReason;
use crate::outbox::event::{EventId, EventType};

/// The columns that [`verification`] reads, in its order.
macro_rules! columns {
    () => {
        "id, application, livemode, status, phone, number, purpose, consent_document, consent_sha256, reference, \
         metadata, minimum_assurance, locale, client_ip, client_device_id, assurance, reasons, created_at, \
         expires_at, ended_at, sequence, phone_key, api_key"
    };
}
pub(super) use columns;

/// Last millisecond of the year 9999, behind which RFC 3339 has no form.
const LAST_MILLISECOND: u64 = 253_402_300_799_999;

/// What a column holds makes no sense to this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value is not one that this version writes")]
struct Damaged;

/// Milliseconds since 1970 UTC; 0 for a time before.
pub fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The same time as it reads back: in whole milliseconds.
pub fn whole_millis(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis(time)).unwrap_or_default().min(LAST_MILLISECOND))
}

/// A number as a column holds it.
pub fn integer(number: E164) -> i64 {
    i64::try_from(number.as_u64()).unwrap_or(i64::MAX)
}

/// Reads a time.
pub fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<SystemTime> {
    let millis = u64::try_from(row.get::<_, i64>(index)?).ok().filter(|millis| *millis <= LAST_MILLISECOND);
    let millis = millis.ok_or_else(|| damaged(index, Type::Integer, Damaged))?;
    Ok(UNIX_EPOCH + Duration::from_millis(millis))
}

/// Reads a number.
pub fn number(row: &Row<'_>, index: usize) -> rusqlite::Result<E164> {
    let number = u64::try_from(row.get::<_, i64>(index)?).unwrap_or_default();
    E164::from_u64(number).map_err(|fault| damaged(index, Type::Integer, fault))
}

/// Reads the id of a verification.
pub fn verification_id(row: &Row<'_>, index: usize) -> rusqlite::Result<VerificationId> {
    row.get_ref(index)?.as_str()?.parse().map_err(|fault| damaged(index, Type::Text, fault))
}

/// Reads the id of a verification, where there is one.
pub fn maybe_verification_id(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<VerificationId>> {
    maybe(row, index, |index| verification_id(row, index))
}

/// Reads a time, where there is one.
pub fn maybe_time(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<SystemTime>> {
    maybe(row, index, |index| time(row, index))
}

/// Reads the name of an endpoint.
pub fn endpoint_id(row: &Row<'_>, index: usize) -> rusqlite::Result<EndpointId> {
    Ok(EndpointId(row.get_ref(index)?.as_str()?.into()))
}

/// Reads the state of a delivery.
pub fn delivery_state(row: &Row<'_>, index: usize) -> rusqlite::Result<DeliveryState> {
    named(row, index, |text| if text == "due" { Some(DeliveryState::Pending) } else { DeliveryState::parse(text) })
}

/// Reads why an endpoint is disabled.
pub fn disable_reason(row: &Row<'_>, index: usize) -> rusqlite::Result<DisableReason> {
    named(row, index, DisableReason::parse)
}

/// Reads the id of an event.
pub fn event_id(row: &Row<'_>, index: usize) -> rusqlite::Result<EventId> {
    named(row, index, |text| Ulid::from_string(text.strip_prefix("evt_")?).ok().map(EventId))
}

/// Reads the type of an event.
pub fn event_type(row: &Row<'_>, index: usize) -> rusqlite::Result<EventType> {
    named(row, index, EventType::parse)
}

/// Reads a status.
pub fn status(row: &Row<'_>, index: usize) -> rusqlite::Result<Status> {
    named(row, index, Status::parse)
}

/// Reads a level of proof.
pub fn assurance(row: &Row<'_>, index: usize) -> rusqlite::Result<Assurance> {
    named(row, index, Assurance::parse)
}

/// Reads `columns!()`.
pub fn verification(row: &Row<'_>) -> rusqlite::Result<Verification> {
    let metadata = row.get_ref(10)?.as_str()?;
    let metadata: BTreeMap<String, String> =
        serde_json::from_str(metadata).map_err(|fault| damaged(10, Type::Text, fault))?;
    let consent = match (row.get(7)?, row.get(8)?) {
        (Some(document), Some(sha256)) => Some(Consent { document, sha256 }),
        _ => None,
    };
    Ok(Verification {
        id: verification_id(row, 0)?,
        application: row.get(1)?,
        livemode: row.get(2)?,
        status: status(row, 3)?,
        phone: number(row, 4)?,
        number: number(row, 5)?,
        purpose: maybe(row, 6, |index| named(row, index, Purpose::parse))?,
        consent,
        reference: row.get(9)?,
        metadata,
        minimum_assurance: assurance(row, 11)?,
        locale: row.get(12)?,
        client_ip: row.get(13)?,
        client_device_id: row.get(14)?,
        assurance: maybe(row, 15, |index| assurance(row, index))?,
        reasons: Reasons::from_bits(row.get(16)?),
        created_at: time(row, 17)?,
        expires_at: time(row, 18)?,
        ended_at: maybe(row, 19, |index| time(row, index))?,
        sequence: row.get(20)?,
        phone_key: row.get::<_, Option<[u8; 32]>>(21)?.map(PhoneKey),
        api_key: row.get(22)?,
    })
}

/// Reads the verification with this id.
pub fn find(connection: &Connection, id: VerificationId) -> rusqlite::Result<Option<Verification>> {
    let sql = concat!("SELECT ", columns!(), " FROM verifications WHERE id = ?1");
    connection.prepare_cached(sql)?.query_row([id.to_string()], verification).optional()
}

/// Writes a new verification.
pub fn insert(connection: &Connection, verification: &Verification) -> rusqlite::Result<()> {
    let sql = concat!(
        "INSERT INTO verifications (",
        columns!(),
        ") VALUES (:id, :application, :livemode, :status, :phone, :number, :purpose, :consent_document, \
         :consent_sha256, :reference, :metadata, :minimum_assurance, :locale, :client_ip, :client_device_id, \
         :assurance, :reasons, :created_at, :expires_at, :ended_at, :sequence, :phone_key, :api_key)"
    );
    let metadata = serde_json::to_string(&verification.metadata).expect("a map of texts always becomes JSON");
    connection.prepare_cached(sql)?.execute(named_params! {
        ":id": verification.id.to_string(),
        ":application": verification.application,
        ":livemode": verification.livemode,
        ":status": verification.status.as_str(),
        ":phone": integer(verification.phone),
        ":number": integer(verification.number),
        ":purpose": verification.purpose.map(Purpose::as_str),
        ":consent_document": verification.consent.as_ref().map(|consent| &consent.document),
        ":consent_sha256": verification.consent.as_ref().map(|consent| &consent.sha256),
        ":reference": verification.reference,
        ":metadata": metadata,
        ":minimum_assurance": verification.minimum_assurance.as_str(),
        ":locale": verification.locale,
        ":client_ip": verification.client_ip,
        ":client_device_id": verification.client_device_id,
        ":assurance": verification.assurance.map(Assurance::as_str),
        ":reasons": verification.reasons.bits(),
        ":created_at": millis(verification.created_at),
        ":expires_at": millis(verification.expires_at),
        ":ended_at": verification.ended_at.map(millis),
        ":sequence": verification.sequence,
        ":phone_key": verification.phone_key.map(|key| key.0),
        ":api_key": verification.api_key,
    })?;
    Ok(())
}

fn named<T>(row: &Row<'_>, index: usize, parse: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<T> {
    parse(row.get_ref(index)?.as_str()?).ok_or_else(|| damaged(index, Type::Text, Damaged))
}

/// Reads a column that may be NULL.
pub fn maybe<T>(
    row: &Row<'_>,
    index: usize,
    read: impl FnOnce(usize) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    if row.get_ref(index)?.data_type() == Type::Null { Ok(None) } else { read(index).map(Some) }
}

fn damaged(index: usize, kind: Type, fault: impl Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(fault))
}
