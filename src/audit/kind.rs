//! What entries tell of.

/// The `kind` of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Old entries were removed from this log.
    AuditPurged,
    /// A copy of the database was made.
    BackupMade,
    /// A configuration was put in force.
    ConfigLoaded,
    /// One was refused.
    ConfigRefused,
    /// Deliveries were sent again by wish.
    DeliveriesReplayed,
    /// An endpoint was enabled by wish.
    EndpointEnabled,
    /// A test was sent to an endpoint by wish.
    EndpointTested,
    /// What an API key was used for.
    KeyUsed,
    /// The node began to serve.
    NodeStarted,
    /// It stopped in order.
    NodeStopped,
    /// A person's data was removed.
    PhoneErased,
    /// The database is a backup that was put back.
    Restored,
    /// Another key signs from now on.
    SigningKeyRotated,
    /// A verification reached its terminal state.
    VerificationEnded,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::AuditPurged,
        Self::BackupMade,
        Self::ConfigLoaded,
        Self::ConfigRefused,
        Self::DeliveriesReplayed,
        Self::EndpointEnabled,
        Self::EndpointTested,
        Self::KeyUsed,
        Self::NodeStarted,
        Self::NodeStopped,
        Self::PhoneErased,
        Self::Restored,
        Self::SigningKeyRotated,
        Self::VerificationEnded,
    ];

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuditPurged => "audit.purged",
            Self::BackupMade => "backup.made",
            Self::ConfigLoaded => "config.loaded",
            Self::ConfigRefused => "config.refused",
            Self::DeliveriesReplayed => "deliveries.replayed",
            Self::EndpointEnabled => "endpoint.enabled",
            Self::EndpointTested => "endpoint.tested",
            Self::KeyUsed => "key.used",
            Self::NodeStarted => "node.started",
            Self::NodeStopped => "node.stopped",
            Self::PhoneErased => "phone.erased",
            Self::Restored => "backup.restored",
            Self::SigningKeyRotated => "signing_key.rotated",
            Self::VerificationEnded => "verification.ended",
        }
    }

    /// Reads the name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}
