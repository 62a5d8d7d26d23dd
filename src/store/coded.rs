//! Coded copies of a stored response: each is a stored response of its own, to which only its identity leads.
//!
//! So a purge, an eviction or a newer response takes the copies with what they are copies of, and nothing looks for them. They
//! are in memory alone: what has not been kept is made again.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use strum::{EnumCount, IntoEnumIterator};

use super::{Body, Store, Stored};
use crate::cache::{self, Coding};

/// What has become of each coding of a stored response. Nothing is allocated until one is asked for.
#[derive(Debug, Default)]
pub(super) struct Copies {
    made: ArcSwapOption<[Made; Coding::COUNT]>,
    /// May there be any? Looked at once.
    allowed: OnceLock<bool>,
}

#[derive(Debug, Clone, Default)]
enum Made {
    #[default]
    No,
    /// Somebody is at it.
    Making,
    /// It saves too little to be kept.
    InVain,
    Here(Arc<Stored>),
}

impl Copies {
    fn is(&self, coding: Coding, found: impl Fn(&Made) -> bool) -> bool {
        self.made.load().as_ref().map_or_else(|| found(&Made::No), |all| found(&all[coding as usize]))
    }

    /// Changes what has become of this coding where `change` says to what.
    fn change(&self, coding: Coding, change: impl Fn(&Made) -> Option<Made>) -> bool {
        let mut changed = false;
        self.made.rcu(|present| {
            let mut all = present.as_deref().cloned().unwrap_or_default();
            let next = change(&all[coding as usize]);
            changed = next.is_some();
            match next {
                Some(next) => {
                    all[coding as usize] = next;
                    Some(Arc::new(all))
                }
                None => present.clone(),
            }
        });
        changed
    }

    fn get(&self, coding: Coding) -> Option<Arc<Stored>> {
        match &self.made.load().as_ref()?[coding as usize] {
            Made::Here(copy) => Some(Arc::clone(copy)),
            _ => None,
        }
    }

    fn begin(&self, coding: Coding) -> bool {
        let is_wanted = |made: &Made| matches!(made, Made::No);
        // Most often it is not, and then nothing is changed.
        self.is(coding, is_wanted) && self.change(coding, |made| is_wanted(made).then_some(Made::Making))
    }

    fn end(&self, coding: Coding) {
        self.change(coding, |made| matches!(made, Made::Making).then_some(Made::No));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Coding, Arc<Stored>)> {
        Coding::iter().filter_map(|coding| Some((coding, self.get(coding)?)))
    }
}

impl Stored {
    /// May it have coded copies? (The policy must want them too.)
    pub fn may_be_coded(&self) -> bool {
        *self.copies.allowed.get_or_init(|| cache::may_be_coded(self.meta.status, &self.meta.fields))
    }

    /// What there are copies in.
    pub fn codings(&self) -> Vec<Coding> {
        self.copies.all().map(|(coding, _)| coding).collect()
    }

    /// Its copy in this coding, where there is one.
    pub fn coded(&self, coding: Coding) -> Option<Arc<Self>> {
        self.copies.get(coding)
    }

    /// Says that the caller makes the copy in this coding; false when there is no need: it is there or being made, or was
    /// made in vain.
    pub fn begin_coding(&self, coding: Coding) -> bool {
        self.copies.begin(coding)
    }

    /// Was it seen that the copy in this coding saves too little?
    pub fn is_coded_in_vain(&self, coding: Coding) -> bool {
        self.copies.is(coding, |made| matches!(made, Made::InVain))
    }

    /// The caller that [began](Self::begin_coding) has made nothing; another may.
    pub fn end_coding(&self, coding: Coding) {
        self.copies.end(coding);
    }

    /// The copy in this coding saves too little: nobody tries again.
    pub fn coded_in_vain(&self, coding: Coding) {
        self.copies.change(coding, |_| Some(Made::InVain));
    }

    /// Takes over the copies of `old`, whose body is this one's too.
    pub(super) fn inherit(&self, old: &Self) {
        for coding in Coding::iter() {
            if let Some(copy) = old.coded(coding) {
                let copy = Arc::new(self.copy(coding, copy.body.clone()));
                self.copies.change(coding, |_| Some(Made::Here(Arc::clone(&copy))));
            }
            if old.is_coded_in_vain(coding) {
                self.coded_in_vain(coding);
            }
        }
    }

    fn copy(&self, coding: Coding, body: Body) -> Self {
        Self {
            meta: cache::coded(&self.meta, coding),
            body,
            key: Arc::clone(&self.key),
            variant: self.variant.clone(),
            position: self.position,
            url: self.url,
            surrogate_keys: self.surrogate_keys.clone(),
            checked: self.position.into(),
            heads: Default::default(),
            copies: Copies::default(),
        }
    }
}

impl Store {
    /// Keeps `coded` as the copy of `stored` in this coding, if that is still stored.
    pub fn put_coded(&self, stored: &Arc<Stored>, coding: Coding, coded: &Bytes) {
        let body = self.keep_in_memory(coded);
        let copy = Arc::new(stored.copy(coding, body));
        stored.copies.change(coding, |_| Some(Made::Here(Arc::clone(&copy))));
        if !self.memory.weigh_again(stored) {
            self.memory.forget(&copy, None);
        }
    }

    /// The copy of `stored` in this coding, if it is here with all of its body. One whose parts were evicted is forgotten.
    pub fn coded(&self, stored: &Stored, coding: Coding) -> Option<Arc<Stored>> {
        let copy = stored.coded(coding)?;
        if self.hole(&copy, 0..copy.body.length()).is_none() {
            return Some(copy);
        }
        let is_it = |made: &Made| matches!(made, Made::Here(here) if Arc::ptr_eq(here, &copy));
        if stored.copies.change(coding, |made| is_it(made).then_some(Made::No)) {
            self.memory.forget(&copy, None);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_that_want_a_copy_one_makes_it() {
        let copies = Copies::default();
        for coding in Coding::iter() {
            let begun: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| usize::from(copies.begin(coding)))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
            });
            assert_eq!(begun, 1, "{coding:?}");
        }
    }

    #[test]
    fn what_was_given_up_is_tried_again_and_what_was_in_vain_is_not() {
        let copies = Copies::default();
        assert!(copies.begin(Coding::Gzip));
        copies.end(Coding::Gzip);
        assert!(copies.begin(Coding::Gzip));
        copies.change(Coding::Gzip, |_| Some(Made::InVain));
        copies.end(Coding::Gzip);
        assert!(!copies.begin(Coding::Gzip) && copies.begin(Coding::Zstd));
        assert_eq!(copies.all().count(), 0);
    }
}
