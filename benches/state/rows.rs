//! The verifications of a run: the one at a place is the same in every process, so that one writes it and another
//! looks it up.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ulid::Ulid;

use ringproof::call::assurance::{Assurance, Reasons};
use ringproof::e164::E164;
use ringproof::matcher::boot_time::BootTime;
use ringproof::matcher::client_access::ClientAccess;
use ringproof::matcher::pair::{PairKey, Pending};
use ringproof::matcher::verification::{Purpose, Status, Verification, VerificationId};
use ringproof::outbox::event::EventId;
use ringproof::store::Create;

/// Most verifications of a run. There are twice as many phones, for those that are begun on top.
pub const MOST: u64 = 50_000_000;

/// The numbers that people call: so many, from this one on.
pub const NUMBERS: u32 = 100;
const FIRST_NUMBER: u64 = 966_115_000_000;

const PHONES: u64 = 100_000_000;
const FIRST_PHONE: u64 = 966_500_000_000;
/// Phones for which nothing is pending.
const FIRST_STRANGER: u64 = 971_500_000_000;
/// Has no divisor in common with `PHONES`: multiples of it come by every phone once, in no order that shows.
const STRIDE: u64 = 61_803_399;

/// The application of all verifications.
pub const APPLICATION: &str = "shop";

/// Length of every window.
pub const TTL: Duration = Duration::from_mins(5);

/// Where the node's clocks stand, in milliseconds: since boot, and since 1970. Whole seconds.
pub const START_BOOT: BootTime = BootTime(864_000_000);
pub const START_UTC: u64 = 1_790_000_000_000;

/// When every window of [`Rows::together`] is over but those of the bystanders.
pub const ALL_OVER: BootTime = BootTime(START_BOOT.0 + 201_000);

/// Verifications that stay pending when all others end.
pub const BYSTANDERS: u64 = 1_000;

/// Keys the index, here as in the application.
pub const SECRET: [u8; 16] = [7; 16];

/// A phone and the number it is to call.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// The phone.
    pub phone: E164,
    /// The number.
    pub number: E164,
}

impl Pair {
    /// Where the index has it.
    pub fn key(self) -> PairKey {
        PairKey::new(&SECRET, self.phone, self.number)
    }
}

/// When windows end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Windows {
    /// All over the next minutes.
    Spread,
    /// In the same second.
    Together,
}

/// The verifications of one database.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    count: u64,
    windows: Windows,
}

impl Rows {
    /// Begun one after the other in 200 s, and pending for 100 s at least.
    pub const fn spread(count: u64) -> Self {
        Self { count, windows: Windows::Spread }
    }

    /// Begun in one second, and bystanders behind them that were begun later.
    pub const fn together(count: u64) -> Self {
        Self { count, windows: Windows::Together }
    }

    /// How many, without bystanders.
    pub const fn count(self) -> u64 {
        self.count
    }

    /// How many in all.
    pub const fn total(self) -> u64 {
        match self.windows {
            Windows::Spread => self.count,
            Windows::Together => self.count + BYSTANDERS,
        }
    }

    /// What memory knows of the one at `place`. Places behind the last are of verifications yet to be begun.
    pub fn pending(self, place: u64) -> Pending {
        let age = Duration::from_millis(START_UTC - self.created_at(place));
        Pending {
            id: self.id(place),
            deadline: START_BOOT.plus(TTL).minus(age),
            application: 0,
            live: true,
            minimum: Assurance::C,
            number: number(place),
            generation: 0,
        }
    }

    /// The step that begins the one at `place`, as the API asks for it.
    pub fn create(self, place: u64) -> Create {
        let event = EventId(Ulid::from_parts(self.created_at(place), random(place + MOST)));
        let token = format!("rpc_{:032x}", random(place));
        let client = ClientAccess { events_url: format!("/v1/client/events?token={token}"), token };
        Create { verification: self.verification(place), event, idempotency: None, client, replaces: None }
    }

    fn verification(self, place: u64) -> Verification {
        let Pair { phone, number } = waited_for(place);
        let created_at = time(self.created_at(place));
        let metadata = [
            ("customer".to_owned(), format!("c-{:010}", mixed(place) % 10_000_000_000)),
            ("campaign".to_owned(), "autumn".to_owned()),
            ("screen".to_owned(), "sign-up/phone".to_owned()),
        ];
        Verification {
            id: self.id(place),
            application: APPLICATION.to_owned(),
            livemode: true,
            status: Status::Pending,
            phone,
            number,
            purpose: Some(Purpose::Registration),
            consent: None,
            reference: Some(format!("sign-up-{place:012}")),
            metadata: BTreeMap::from(metadata),
            minimum_assurance: Assurance::C,
            locale: Some("ar-SA".to_owned()),
            client_ip: Some(format!("198.18.{}.{}", mixed(place) % 256, place % 256)),
            client_device_id: None,
            assurance: None,
            reasons: Reasons::NONE,
            created_at,
            expires_at: created_at + TTL,
            ended_at: None,
            sequence: 0,
            phone_key: None,
            api_key: None,
        }
    }

    fn id(self, place: u64) -> VerificationId {
        VerificationId(Ulid::from_parts(self.created_at(place), random(place)))
    }

    /// In milliseconds since 1970, never falling from one place to the next.
    fn created_at(self, place: u64) -> u64 {
        if place >= self.count {
            return START_UTC;
        }
        match self.windows {
            Windows::Spread => START_UTC - 200_000 + 200_000 * place / self.count,
            // From the first millisecond behind a whole second to the next whole one: due in the same second.
            Windows::Together => START_UTC - 100_000 + 1 + 1_000 * place / self.count,
        }
    }
}

/// Phone and number of the verification at `place`.
pub fn waited_for(place: u64) -> Pair {
    Pair { phone: phone(FIRST_PHONE, place), number: number(place) }
}

/// A phone for which nothing is pending, and a number that it may call all the same.
pub fn stranger(place: u64) -> Pair {
    Pair { phone: phone(FIRST_STRANGER, place), number: number(place) }
}

/// The number that people call in the `place`-th verification.
pub fn number(place: u64) -> E164 {
    E164::from_u64(FIRST_NUMBER + place % u64::from(NUMBERS)).expect("a number of Saudi Arabia")
}

/// A number without a pattern, another one for each `value` (the finalizer of `SplitMix64`).
pub const fn mixed(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A time as the node's clock has it.
pub fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

fn phone(first: u64, place: u64) -> E164 {
    E164::from_u64(first + place % PHONES * STRIDE % PHONES).expect("the country has numbers of this form")
}

fn random(place: u64) -> u128 {
    u128::from(mixed(place)) << 64 | u128::from(mixed(!place))
}
