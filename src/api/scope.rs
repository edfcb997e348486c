//! Scopes: what a key may ask for (RFC 6750 3, RFC 6749 3.3).

/// One thing that a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// Begin and cancel verifications.
    VerificationsWrite,
    /// Read verifications, events, deliveries and webhook endpoints.
    VerificationsRead,
    /// Read the calls of a verification.
    CallsRead,
    /// Read the SIP trace of a verification.
    TraceRead,
    /// Replay deliveries and enable webhook endpoints.
    DeliveriesWrite,
    /// Place sandbox calls.
    TestWrite,
    /// Erase what is stored of a phone.
    Erase,
}

impl Scope {
    /// Every scope, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::VerificationsWrite,
        Self::VerificationsRead,
        Self::CallsRead,
        Self::TraceRead,
        Self::DeliveriesWrite,
        Self::TestWrite,
        Self::Erase,
    ];

    /// The name in the configuration and in challenges.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerificationsWrite => "verifications:write",
            Self::VerificationsRead => "verifications:read",
            Self::CallsRead => "calls:read",
            Self::TraceRead => "trace:read",
            Self::DeliveriesWrite => "deliveries:write",
            Self::TestWrite => "test:write",
            Self::Erase => "erase",
        }
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope: what a key without a list of its own has.
    pub const ALL: Self = Self((1 << Scope::ALL.len()) - 1);

    /// Whether `scope` is in the set.
    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// The scopes of the set.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_into_it() {
        let some: Scopes = [Scope::Erase, Scope::CallsRead].into_iter().collect();
        assert_eq!(some.iter().collect::<Vec<_>>(), [Scope::CallsRead, Scope::Erase]);
        assert_eq!(Scopes::ALL, Scope::ALL.into_iter().collect());
        assert!(Scope::ALL.into_iter().all(|scope| Scopes::ALL.contains(scope)));
    }
}
