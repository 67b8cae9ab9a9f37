//! Values of the caller, by their type. Knows nothing of what reads them.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

/// Values that handlers share, by type. These are the extensions of the async crate.
#[derive(Default)]
pub(crate) struct Extensions(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl Extensions {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    pub(crate) fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref())
    }
}

/// The values that were passed to [`WorkerOptions::add_extension`](crate::WorkerOptions::add_extension), by their type.
#[derive(Clone)]
pub struct ReadOnlyExtensions(pub(crate) Arc<Extensions>);

impl ReadOnlyExtensions {
    /// Returns the value of type `T`. `None` if none was added.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get()
    }
}
