//! Where the application takes its random numbers from: the system's, and in tests of whole histories a seeded source of
//! the thread's own, so that a history that fails can be had again.

#[cfg(not(test))]
pub(super) fn dice() -> rand::rngs::ThreadRng {
    rand::rng()
}

#[cfg(test)]
pub(super) use seeded::{dice, seed};

#[cfg(test)]
mod seeded {
    use std::cell::RefCell;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    thread_local! {
        static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// Has this thread's numbers follow from a seed.
    pub fn seed(seed: u64) {
        DICE.with_borrow_mut(|dice| *dice = Some(StdRng::seed_from_u64(seed)));
    }

    pub fn dice() -> StdRng {
        DICE.with_borrow_mut(|dice| match dice {
            Some(dice) => StdRng::seed_from_u64(dice.random()),
            None => StdRng::seed_from_u64(rand::rng().random()),
        })
    }
}
