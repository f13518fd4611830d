//! Applications: which ones are declared. Nothing in this version calls them.

use std::sync::Arc;

use parking_lot::RwLock;
use tidegate_resources::{App, Resources};

/// The applications that resource files declare. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Apps(Arc<RwLock<Arc<[App]>>>);

impl Apps {
    /// Puts what the files declare in place of what they declared before.
    pub fn apply(&self, resources: &Resources) {
        let mut apps = resources.apps.clone();
        apps.sort_by(|one, other| one.name.cmp(&other.name));
        *self.0.write() = apps.into();
    }

    /// All of them, by name.
    pub fn list(&self) -> Arc<[App]> {
        Arc::clone(&self.0.read())
    }
}
