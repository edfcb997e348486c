//! The key under which records that outlive a verification name its phone.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::e164::E164;

/// Random bytes of one verification. While they are known, its phone can be told from the HMAC in receipts and in the
/// audit log; once they are gone, nobody can try numbers against it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PhoneKey(pub [u8; 32]);

impl fmt::Debug for PhoneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneKey(..)")
    }
}

impl PhoneKey {
    /// HMAC-SHA256 of the phone in E.164 with `+`.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "HMAC takes a key of any length")]
    pub fn hmac(&self, phone: E164) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(phone.to_string().as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// Whether `hmac` is this phone's.
    #[must_use]
    pub fn fits(&self, phone: E164, hmac: &[u8; 32]) -> bool {
        self.hmac(phone).ct_eq(hmac).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_is_named_by_its_key_and_shown_by_nobody() {
        let key = PhoneKey([7; 32]);
        let (phone, other) = ("+966500000123".parse().unwrap(), "+966500000124".parse().unwrap());
        assert!(key.fits(phone, &key.hmac(phone)) && !key.fits(other, &key.hmac(phone)));
        assert_ne!(PhoneKey([8; 32]).hmac(phone), key.hmac(phone));
        assert_eq!(format!("{key:?}"), "PhoneKey(..)");
    }
}
