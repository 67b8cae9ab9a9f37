//! Handles: numbers in the form of pointers. A lookup detects a handle that is NULL, freed, of another kind, or from
//! before a fork. It never reads freed memory. Knows nothing of what the values are.

use super::failure::Failure;
use super::status::{GW_ERR_FORKED, GW_ERR_HANDLE, GW_ERR_INVALID, GW_ERR_NOMEM};
use parking_lot::Mutex;
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

// A handle is, from the highest bit down: 4 bits of kind, 8 of forks, 20 of slot, 32 of generation.
const KIND: u32 = 60;
const FORKS: u32 = 52;
const SLOT: u32 = 32;
const CHUNK: usize = 1 << 10;
const CHUNKS: usize = 1 << 10;

// A slot's word is, from the top: 32 bits of generation, 1 bit that says freed, 31 bits that count current uses.
const FREED: u64 = 1 << 31;
const USES: u64 = FREED - 1;

const _: () = assert!(usize::BITS == 64, "a handle has 64 bits");

/// A type that can have handles.
pub(super) trait Value: Send + Sync + Sized + 'static {
    /// The number of the kind, 1 to 15.
    const KIND: u64;
    /// The name of the kind in error messages.
    const NAME: &'static str;

    /// The slab of the kind: a static of the file that declares the kind.
    fn slab() -> &'static KindSlab<Self>;

    /// A number of the value that never changes. It is stored beside the value, because callers read it often.
    fn tag(&self) -> i64 {
        0
    }
}

/// How many forks lie between the first process that loaded the library and this one.
static FORKED: AtomicU32 = AtomicU32::new(0);

/// The number of forks modulo 256.
pub(super) fn forks() -> u64 {
    u64::from(FORKED.load(Ordering::Relaxed)) & 0xff
}

extern "C" fn in_the_child() {
    FORKED.fetch_add(1, Ordering::Relaxed);
}

/// The slab of one kind in this process. A forked child begins with a new one, because a thread that the child does not
/// have may hold the lock of the parent's.
pub(super) struct KindSlab<T>(AtomicPtr<Slab<T>>);

impl<T> KindSlab<T> {
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    fn get(&self) -> &'static Slab<T> {
        let known = self.0.load(Ordering::Acquire);
        // SAFETY: a slab that is not NULL came from a box and is never freed.
        match unsafe { known.as_ref() } {
            Some(slab) if slab.forked == FORKED.load(Ordering::Relaxed) => slab,
            _ => self.make(known),
        }
    }

    /// Replaces `known`, which is NULL or the parent's slab. The parent's is leaked, not freed: its values belong to
    /// the parent.
    #[cold]
    fn make(&self, known: *mut Slab<T>) -> &'static Slab<T> {
        // Not a `Once`: a child forked during its call would block on it.
        static WATCHES_FORKS: AtomicBool = AtomicBool::new(false);
        if !WATCHES_FORKS.swap(true, Ordering::AcqRel) {
            // SAFETY: the handler only stores to an atomic, which a forked child may do.
            unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
        }
        let fresh = Box::into_raw(Box::new(Slab::new(FORKED.load(Ordering::Relaxed))));
        let slab = match self.0.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh,
            Err(earlier) => {
                // SAFETY: `fresh` was not published, so no other thread has it.
                drop(unsafe { Box::from_raw(fresh) });
                earlier
            }
        };
        // SAFETY: `slab` came from a box and is never freed.
        unsafe { &*slab }
    }
}

struct Slot<T> {
    word: AtomicU64,
    tag: AtomicI64,
    value: UnsafeCell<Option<T>>,
}

/// The values of one kind. Slots are never returned to the allocator, so that any handle can be looked up.
struct Slab<T> {
    /// [`FORKED`] when the slab was made.
    forked: u32,
    chunks: [AtomicPtr<[Slot<T>; CHUNK]>; CHUNKS],
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    slots: Vec<u32>,
    never_used: u32,
}

// SAFETY: a slot's value is written only by the thread that took the slot off the free list, or by the last user after
// the slot was freed. It is read only while a use is counted. The word orders the two.
unsafe impl<T: Send + Sync> Sync for Slab<T> {}

impl<T> Slab<T> {
    fn new(forked: u32) -> Self {
        Self { forked, chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS], free: Mutex::default() }
    }

    fn slot(&self, number: usize) -> Option<&Slot<T>> {
        let chunk = self.chunks.get(number / CHUNK)?.load(Ordering::Acquire);
        // SAFETY: a chunk that is not null came from a box and is never freed.
        let chunk = unsafe { chunk.as_ref() }?;
        Some(&chunk[number % CHUNK])
    }

    /// Takes a free slot; `None` if all 1,048,576 slots are in use.
    fn take(&self) -> Option<u32> {
        let mut free = self.free.lock();
        if let Some(number) = free.slots.pop() {
            return Some(number);
        }
        let number = free.never_used;
        let chunk = self.chunks.get(number as usize / CHUNK)?;
        if chunk.load(Ordering::Acquire).is_null() {
            let slots = std::array::from_fn(|_| Slot {
                word: AtomicU64::new(0),
                tag: AtomicI64::new(0),
                value: UnsafeCell::new(None),
            });
            chunk.store(Box::into_raw(Box::new(slots)), Ordering::Release);
        }
        free.never_used += 1;
        Some(number)
    }

    /// Empties a slot that was freed and has no user left.
    fn empty(&self, number: u32, slot: &Slot<T>) {
        // SAFETY: the word says freed and no use, so no new use can begin. Only the thread that set this state is here.
        let value = unsafe { (*slot.value.get()).take() };
        let generation = (slot.word.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        slot.word.store(generation << 32 | FREED, Ordering::Release);
        self.free.lock().slots.push(number);
        drop(value);
    }
}

/// A value in use. The value stays until this is dropped, even if another thread frees the handle meanwhile.
pub(super) struct Use<T: Value> {
    slab: &'static Slab<T>,
    slot: &'static Slot<T>,
    number: u32,
}

impl<T: Value> Deref for Use<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: while a use is counted, the value is neither written nor taken.
        unsafe { (*self.slot.value.get()).as_ref() }.expect("a slot in use has its value")
    }
}

impl<T: Value> Drop for Use<T> {
    fn drop(&mut self) {
        let before = self.slot.word.fetch_sub(1, Ordering::AcqRel);
        if before & (FREED | USES) == FREED | 1 {
            self.slab.empty(self.number, self.slot);
        }
    }
}

/// Makes a handle for a value, of the value's pointer type in C. NULL if all slots are in use.
pub(super) fn give<T: Value, C>(value: T) -> *mut C {
    try_give(value).unwrap_or(ptr::null_mut())
}

/// Makes a handle for a value. GW_ERR_NOMEM if all slots are in use.
pub(super) fn try_give<T: Value, C>(value: T) -> Result<*mut C, Failure> {
    let slab = T::slab().get();
    let number = slab
        .take()
        .ok_or_else(|| Failure::new(GW_ERR_NOMEM, format!("too many handles of kind {} are in use", T::NAME)))?;
    let slot = slab.slot(number as usize).expect("a slot that was taken is there");
    slot.tag.store(value.tag(), Ordering::Relaxed);
    // SAFETY: the slot was on the free list, so no other thread reads its value.
    unsafe { *slot.value.get() = Some(value) };
    let generation = slot.word.load(Ordering::Relaxed) >> 32;
    slot.word.store(generation << 32, Ordering::Release);
    let handle = T::KIND << KIND | forks() << FORKS | u64::from(number) << SLOT | generation;
    Ok(ptr::without_provenance_mut(handle as usize))
}

/// Looks up the value of a handle, and counts a use of it.
pub(super) fn look<T: Value, C>(handle: *const C) -> Result<Use<T>, Failure> {
    let Some(Found { slab, slot, number, generation }) = find::<T>(handle.addr()) else {
        return Err(refusal::<T>(handle.addr()));
    };
    let mut word = slot.word.load(Ordering::Acquire);
    loop {
        if word >> 32 != generation || word & FREED != 0 {
            return Err(refusal::<T>(handle.addr()));
        }
        match slot.word.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(Use { slab, slot, number }),
            Err(now) => word = now,
        }
    }
}

/// The tag of a handle's value. Counts no use: the tag is right if the handle is good before and after reading it.
#[inline]
pub(super) fn tag<T: Value, C>(handle: *const C) -> Option<i64> {
    let Found { slot, generation, .. } = find::<T>(handle.addr())?;
    let is_good = |order| slot.word.load(order) & !USES == generation << 32;
    if !is_good(Ordering::Acquire) {
        return None;
    }
    let tag = slot.tag.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    is_good(Ordering::Relaxed).then_some(tag)
}

/// Frees a handle. The value is dropped when its last use ends.
pub(super) fn free<T: Value, C>(handle: *const C) -> Result<(), Failure> {
    let Some(Found { slab, slot, number, generation }) = find::<T>(handle.addr()) else {
        return Err(refusal::<T>(handle.addr()));
    };
    let mut word = slot.word.load(Ordering::Acquire);
    loop {
        if word >> 32 != generation || word & FREED != 0 {
            return Err(refusal::<T>(handle.addr()));
        }
        match slot.word.compare_exchange_weak(word, word | FREED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) if word & USES == 0 => {
                slab.empty(number, slot);
                return Ok(());
            }
            Ok(_) => return Ok(()),
            Err(now) => word = now,
        }
    }
}

/// The slot of a handle.
struct Found<T: Value> {
    slab: &'static Slab<T>,
    slot: &'static Slot<T>,
    number: u32,
    generation: u64,
}

#[inline]
fn find<T: Value>(handle: usize) -> Option<Found<T>> {
    let handle = handle as u64;
    if handle >> KIND != T::KIND || handle >> FORKS & 0xff != forks() {
        return None;
    }
    let number = (handle >> SLOT & 0xf_ffff) as u32;
    let slab = T::slab().get();
    let slot = slab.slot(number as usize)?;
    Some(Found { slab, slot, number, generation: handle & 0xffff_ffff })
}

/// Why a handle is refused.
#[cold]
fn refusal<T: Value>(handle: usize) -> Failure {
    let handle = handle as u64;
    let name = T::NAME;
    if handle == 0 {
        return Failure::new(GW_ERR_INVALID, format!("the {name} is NULL"));
    }
    if handle >> KIND != T::KIND {
        return Failure::new(GW_ERR_HANDLE, format!("wrong kind of handle: expected {name}"));
    }
    if handle >> FORKS & 0xff != forks() {
        let text = format!("this {name} belongs to the parent process; make a new one after a fork");
        return Failure::new(GW_ERR_FORKED, text);
    }
    Failure::new(GW_ERR_HANDLE, format!("this {name} was freed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Word(String);

    impl Value for Word {
        const KIND: u64 = 14;
        const NAME: &'static str = "word";

        fn slab() -> &'static KindSlab<Self> {
            static SLAB: KindSlab<Word> = KindSlab::new();
            &SLAB
        }
    }

    struct Other;

    impl Value for Other {
        const KIND: u64 = 15;
        const NAME: &'static str = "other";

        fn slab() -> &'static KindSlab<Self> {
            static SLAB: KindSlab<Other> = KindSlab::new();
            &SLAB
        }
    }

    fn value(text: &str) -> Word {
        Word(text.to_owned())
    }

    #[test]
    fn freed_handle_is_refused_after_its_slot_is_reused() {
        let first: *mut u8 = give(value("first"));
        free::<Word, _>(first).unwrap();
        let second: *mut u8 = give(value("second"));
        assert_eq!(look::<Word, _>(first).err().map(|failure| failure.status), Some(GW_ERR_HANDLE));
        assert_eq!(free::<Word, _>(first).err().map(|failure| failure.status), Some(GW_ERR_HANDLE));
        assert!(look::<Word, _>(second).is_ok());
        free::<Word, _>(second).unwrap();
    }

    #[test]
    fn a_value_in_use_outlives_its_handle() {
        let handle: *mut u8 = give(value("here"));
        let used = look::<Word, _>(handle).unwrap();
        free::<Word, _>(handle).unwrap();
        assert!(look::<Word, _>(handle).is_err());
        assert_eq!(used.0, "here");
    }

    #[test]
    fn handle_of_another_kind_or_unused_slot_is_refused() {
        let handle: *mut u8 = give(value("one"));
        assert!(look::<Other, _>(handle).is_err());
        // No other test uses this slot.
        assert!(look::<Word, u8>(ptr::without_provenance(handle.addr() ^ (1 << (SLOT + 15)))).is_err());
        assert!(look::<Word, u8>(ptr::without_provenance(0x1234)).is_err());
        free::<Word, _>(handle).unwrap();
    }

    #[test]
    fn concurrent_use_and_free_never_reads_a_dropped_value() {
        for _ in 0..200 {
            let handles: Vec<usize> = (0..16).map(|number| give::<_, u8>(value(&number.to_string())).addr()).collect();
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let handles = &handles;
                    scope.spawn(move || {
                        for &handle in handles {
                            let handle: *const u8 = ptr::without_provenance(handle);
                            if let Ok(used) = look::<Word, _>(handle) {
                                assert!(!used.0.is_empty());
                            }
                            if thread == 3 {
                                free::<Word, _>(handle).unwrap();
                            }
                        }
                    });
                }
            });
        }
    }
}
