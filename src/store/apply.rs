//! What each step does inside the open transaction: its rows, its one event, and that event's deliveries.
//!
//! Owns the statements that change something. Does not begin, commit or undo: that is the writer's. Invariant: the
//! event of a step is in the step's own transaction, so the event is there exactly when the step was done.

use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::{Connection, ErrorCode, OptionalExtension, named_params, params};

use super::row::{self, columns, millis};
use super::step::{Claim, Done, End, IdempotencyRecord, Note, Prepared, Warning, Work};
use super::{audit, deliveries, endpoints, erase, replay, tried};
use crate::audit::chain::Chain;
use crate::audit::kind::Kind;
use crate::audit::outcome;
use crate::call::assurance::Assurance;
use crate::call::event::{CallerSource, Presentation};
use crate::matcher::verification::{Status, Verification, VerificationId};
use crate::outbox::delivery::{DeliveryId, Due, EndpointId, Subscriptions};
use crate::outbox::endpoint::DisableReason;
use crate::outbox::event::{CallFacts, EventId, EventType, body};

/// What a transaction changes outside the database once it is committed.
#[derive(Debug, Default)]
pub struct Effects {
    /// How far the audit log has come.
    pub chain: Chain,
    /// Application and status of each verification that reached a status.
    pub reached: Vec<(String, Status)>,
    /// Deliveries to be tried now.
    pub due: Vec<Due>,
    /// By how much the number of deliveries changes that are due or will be.
    pub backlog: i64,
    /// Application and name of each endpoint that was disabled, and why.
    pub disabled: Vec<(String, EndpointId, DisableReason)>,
    /// Whether endpoints were enabled.
    pub enabled: bool,
    /// Applications of which a person's data was removed: what of it is on its way is not to be sent.
    pub erased: Vec<String>,
}

/// A point in a transaction to go back to.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    chain: Chain,
    reached: usize,
    due: usize,
    backlog: i64,
    disabled: usize,
}

impl Effects {
    /// Those of a transaction that goes on with the audit log behind `chain`.
    pub fn behind(chain: Chain) -> Self {
        Self { chain, ..Self::default() }
    }

    /// A point to go back to.
    pub fn mark(&self) -> Mark {
        Mark {
            chain: self.chain,
            reached: self.reached.len(),
            due: self.due.len(),
            backlog: self.backlog,
            disabled: self.disabled.len(),
        }
    }

    /// Forgets what came after `mark`. That endpoints were enabled or data removed is looked up anyway.
    pub fn back_to(&mut self, mark: Mark) {
        self.chain = mark.chain;
        self.reached.truncate(mark.reached);
        self.due.truncate(mark.due);
        self.backlog = mark.backlog;
        self.disabled.truncate(mark.disabled);
    }
}

/// Why a step's statements did not go through.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The step asks for a state or a kind of event that it cannot bring about.
    #[error("the step cannot lead to {0}")]
    Misuse(&'static str),
    /// `SQLite` refused.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

impl ApplyError {
    /// Whether the step itself is at fault, not the disk or the file: its neighbours would go through without it.
    pub fn is_the_steps_own(&self) -> bool {
        match self {
            Self::Sql(rusqlite::Error::SqliteFailure(failure, _)) => matches!(
                failure.code,
                ErrorCode::ConstraintViolation
                    | ErrorCode::TypeMismatch
                    | ErrorCode::TooBig
                    | ErrorCode::ParameterOutOfRange
            ),
            // Or a value that does not convert, in the step or in the row that it touches.
            Self::Misuse(_) | Self::Sql(_) => true,
        }
    }
}

/// Does one step.
pub fn apply(
    connection: &Connection,
    subscriptions: &Subscriptions,
    work: &Work,
    effects: &mut Effects,
) -> Result<Done, ApplyError> {
    let mut outbox = Outbox { connection, subscriptions, effects };
    match work {
        Work::Create(prepared) => create(&mut outbox, prepared).map(Some).map(Done::Verification),
        Work::Claim(step) => claim(&mut outbox, step).map(Done::Verification),
        Work::End(step) => end(&mut outbox, step).map(Done::Verification),
        Work::Note(step) => note(&mut outbox, step).map(Done::Verification),
        Work::Warn(step) => {
            let Warning { application, event: id, kind, at, body } = &**step;
            if kind.is_for_subscribers() && subscriptions.of(application, *kind).next().is_none() {
                return Ok(Done::Other);
            }
            let event =
                Event { id: *id, kind: *kind, at: *at, application, verification: None, body: Arc::clone(body) };
            outbox.tell(&event, None).map(|()| Done::Other)
        }
        Work::Tried(step) => tried::tried(&mut outbox, step).map(|()| Done::Other),
        Work::Replay(step) => replay::replay(&mut outbox, step).map(Done::Replay),
        Work::Enable(step) => endpoints::enable(&mut outbox, step).map(|()| Done::Other),
        Work::Audit(step) => outbox.audit(step.at, step.kind, None, &step.data).map(|()| Done::Other),
        Work::Checkpoint(step) => {
            audit::keep_checkpoint(connection, step.seq, step.at, &step.jws)?;
            Ok(Done::Other)
        }
        Work::Hasten(now) => deliveries::hasten(connection, *now).map(|()| Done::Other),
        Work::Erase(step) => erase::erase(&mut outbox, step).map(Done::Erased),
        Work::ReplayMany(step) => replay::replay_many(&mut outbox, step).map(Done::ReplayedMany),
    }
}

/// The event that tells of a terminal state reached without a call.
fn ending(status: Status) -> Result<EventType, ApplyError> {
    match status {
        Status::Expired => Ok(EventType::Expired),
        Status::Canceled => Ok(EventType::Canceled),
        Status::Denied => Ok(EventType::Denied),
        Status::Failed => Ok(EventType::Failed),
        Status::Pending | Status::Verified => Err(ApplyError::Misuse(status.as_str())),
    }
}

fn create(outbox: &mut Outbox<'_>, prepared: &Prepared) -> Result<Verification, ApplyError> {
    let step = &prepared.create;
    let verification = &step.verification;
    if let Some(replaced) = &step.replaces {
        end(outbox, replaced)?;
    }
    row::insert(outbox.connection, verification)?;
    if let (Some(record), Some(answer)) = (&step.idempotency, &prepared.answer) {
        remember(outbox.connection, record, verification.id, answer, verification.created_at)?;
    }
    let at = verification.created_at;
    let event = Event {
        id: step.event,
        kind: EventType::Created,
        at,
        application: &verification.application,
        verification: Some(verification.id),
        body: Arc::clone(&prepared.body),
    };
    outbox.tell(&event, None)?;
    outbox.effects.reached.push((verification.application.clone(), Status::Pending));
    Ok(verification.clone())
}

fn claim(outbox: &mut Outbox<'_>, step: &Claim) -> Result<Option<Verification>, ApplyError> {
    let sql = concat!(
        "UPDATE verifications SET status = 'verified', assurance = :assurance, reasons = reasons | :reasons, \
         ended_at = :at, sequence = sequence + 1 WHERE id = :id AND status = 'pending' RETURNING ",
        columns!()
    );
    let call = &step.call.event;
    let parameters = named_params! {
        ":assurance": call.assurance.as_str(),
        ":reasons": call.reasons.bits(),
        ":at": millis(step.at),
        ":id": step.verification.to_string(),
    };
    let claimed = outbox.connection.prepare_cached(sql)?.query_row(parameters, row::verification).optional()?;
    let Some(verification) = claimed else { return Ok(None) };
    record(outbox.connection, &verification, &step.call, "verified")?;
    tell_end(outbox, &verification, step.at, Some(&step.call))?;
    outbox.render(step.event, EventType::Verified, step.at, &verification, Some(&step.call))?;
    outbox.effects.reached.push((verification.application.clone(), Status::Verified));
    Ok(Some(verification))
}

/// Puts the outcome into the audit log.
fn tell_end(
    outbox: &mut Outbox<'_>,
    verification: &Verification,
    at: SystemTime,
    call: Option<&CallFacts>,
) -> Result<(), ApplyError> {
    let data = outcome::data(verification, call);
    outbox.audit(at, Kind::VerificationEnded, Some(verification.id), &data)
}

pub(super) fn end(outbox: &mut Outbox<'_>, step: &End) -> Result<Option<Verification>, ApplyError> {
    let sql = concat!(
        "UPDATE verifications SET status = :status, reasons = reasons | :reasons, ended_at = :at, \
         sequence = sequence + 1 WHERE id = :id AND status = 'pending' RETURNING ",
        columns!()
    );
    let kind = ending(step.status)?;
    let parameters = named_params! {
        ":status": step.status.as_str(),
        ":reasons": step.reasons.bits(),
        ":at": millis(step.at),
        ":id": step.verification.to_string(),
    };
    let ended = outbox.connection.prepare_cached(sql)?.query_row(parameters, row::verification).optional()?;
    let Some(verification) = ended else { return Ok(None) };
    if let Some(record) = &step.idempotency {
        remember(outbox.connection, record, verification.id, &verification.to_json(), step.at)?;
    }
    tell_end(outbox, &verification, step.at, None)?;
    outbox.render(step.event, kind, step.at, &verification, None)?;
    outbox.effects.reached.push((verification.application.clone(), step.status));
    Ok(Some(verification))
}

fn note(outbox: &mut Outbox<'_>, step: &Note) -> Result<Option<Verification>, ApplyError> {
    let received = concat!(
        "UPDATE verifications SET reasons = reasons | :reasons, sequence = sequence + 1 \
         WHERE id = :id AND status = 'pending' RETURNING ",
        columns!()
    );
    let late = concat!(
        "UPDATE verifications SET reasons = reasons | :reasons, sequence = sequence + 1 WHERE id = :id RETURNING ",
        columns!()
    );
    let (sql, reasons, outcome) = match step.kind {
        EventType::CallReceived => (received, step.call.event.reasons.bits(), "refused"),
        EventType::LateCall => (late, 0, "late"),
        EventType::CallRepeated => (late, 0, "repeated"),
        EventType::CallMismatched => (received, 0, "mismatched"),
        other => return Err(ApplyError::Misuse(other.as_str())),
    };
    if step.kind.is_for_subscribers() {
        // A hint that anybody can bring about is kept for whoever asked for it.
        let row = row::find(outbox.connection, step.verification)?;
        let heard = |row: &Verification| outbox.subscriptions.of(&row.application, step.kind).next().is_some();
        if !row.as_ref().is_some_and(heard) {
            return Ok(None);
        }
    }
    let parameters = named_params! { ":reasons": reasons, ":id": step.verification.to_string() };
    let named = outbox.connection.prepare_cached(sql)?.query_row(parameters, row::verification).optional()?;
    let Some(verification) = named else {
        // A claim is more urgent than a note, so the next call may have ended it meanwhile. Then nobody is told any more,
        // but the call is among those of the verification.
        if step.kind == EventType::CallReceived
            && let Some(verification) = row::find(outbox.connection, step.verification)?
        {
            record(outbox.connection, &verification, &step.call, outcome)?;
        }
        return Ok(None);
    };
    record(outbox.connection, &verification, &step.call, outcome)?;
    outbox.render(step.event, step.kind, step.at, &verification, Some(&step.call))?;
    Ok(Some(verification))
}

/// Where events go.
pub(super) struct Outbox<'a> {
    pub(super) connection: &'a Connection,
    pub(super) subscriptions: &'a Subscriptions,
    pub(super) effects: &'a mut Effects,
}

/// An event to be told.
pub(super) struct Event<'a> {
    pub(super) id: EventId,
    pub(super) kind: EventType,
    pub(super) at: SystemTime,
    pub(super) application: &'a str,
    pub(super) verification: Option<VerificationId>,
    pub(super) body: Arc<str>,
}

impl Outbox<'_> {
    fn render(
        &mut self,
        id: EventId,
        kind: EventType,
        at: SystemTime,
        verification: &Verification,
        call: Option<&CallFacts>,
    ) -> Result<(), ApplyError> {
        let body = body(kind, at, verification, call).into();
        let (application, verification) = (verification.application.as_str(), Some(verification.id));
        self.tell(&Event { id, kind, at, application, verification, body }, None)
    }

    /// Writes an event and its deliveries, none to the endpoint `except`. Deliveries to a disabled endpoint are parked.
    pub(super) fn tell(&mut self, event: &Event<'_>, except: Option<&EndpointId>) -> Result<(), ApplyError> {
        let Event { id, kind, at, application, verification, ref body } = *event;
        let sql = "INSERT INTO events (id, application, verification, type, at, body) \
                   VALUES (:id, :application, :verification, :type, :at, :body)";
        self.connection.prepare_cached(sql)?.execute(named_params! {
            ":id": id.to_string(),
            ":application": application,
            ":verification": verification.map(|id| id.to_string()),
            ":type": kind.as_str(),
            ":at": millis(at),
            ":body": body,
        })?;
        let sequence = self.connection.last_insert_rowid();

        let sql = "INSERT INTO deliveries (application, event, endpoint, planned_from, next_at, state) \
                   VALUES (?1, ?2, ?3, ?4, ?4, CASE WHEN EXISTS (SELECT 1 FROM endpoints WHERE id = ?3 \
                   AND disabled_at IS NOT NULL) THEN 'parked' ELSE 'due' END) RETURNING id, state = 'due'";
        for endpoint in self.subscriptions.of(application, kind).filter(|endpoint| Some(*endpoint) != except) {
            let parameters = params![application, sequence, endpoint.0, millis(at)];
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let (row, due): (i64, bool) = self.connection.prepare_cached(sql)?.query_row(parameters, read)?;
            if due {
                self.effects.backlog += 1;
                self.effects.due.push(Due {
                    id: DeliveryId(row),
                    endpoint: endpoint.clone(),
                    event: id,
                    kind,
                    planned_from: at,
                    attempts: 0,
                    replayed_after: 0,
                    body: Arc::clone(body),
                });
            }
        }
        Ok(())
    }
}

fn remember(
    connection: &Connection,
    record: &IdempotencyRecord,
    verification: VerificationId,
    answer: &str,
    at: SystemTime,
) -> Result<(), ApplyError> {
    let sql = "INSERT INTO idempotency \
               (application, scope, request_key, fingerprint, status, body, verification, created_at) \
               VALUES (:application, :scope, :key, :fingerprint, :status, :body, :verification, :at)";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":application": record.application,
        ":scope": record.scope,
        ":key": record.key,
        ":fingerprint": record.fingerprint,
        ":status": record.status,
        ":body": answer,
        ":verification": verification.to_string(),
        ":at": millis(at),
    })?;
    Ok(())
}

fn record(
    connection: &Connection,
    verification: &Verification,
    call: &CallFacts,
    outcome: &str,
) -> Result<(), ApplyError> {
    let sql = "INSERT INTO calls (id, verification, application, trunk, caller, dialled, source, assurance, reasons, \
               outcome, received_at, call_key, trace) VALUES (:id, :verification, :application, :trunk, :caller, :dialled, \
               :source, :assurance, :reasons, :outcome, :received_at, :call_key, :trace)";
    let event = &call.event;
    // A number that its owner withholds was good for the match and leaves no trace.
    let caller = event.caller.filter(|_| event.presentation == Presentation::Allowed);
    connection.prepare_cached(sql)?.execute(named_params! {
        ":id": call.id.to_string(),
        ":verification": verification.id.to_string(),
        ":application": verification.application,
        ":trunk": call.trunk,
        ":caller": caller.map(row::integer),
        ":dialled": event.dialled.map(row::integer),
        ":source": event.source.map(CallerSource::as_str),
        ":assurance": Assurance::as_str(event.assurance),
        ":reasons": event.reasons.bits(),
        ":outcome": outcome,
        ":received_at": millis(event.received_at),
        ":call_key": event.key.0.cast_signed(),
        ":trace": call.trace(),
    })?;
    Ok(())
}
