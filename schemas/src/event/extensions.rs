use bytestring::ByteString;

use super::Value;

/// Extension attributes in ascending order of their names.
///
/// A sorted vector, because an event has a handful of them: one allocation, and nothing at all for none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Extensions(Vec<(ByteString, Value)>);

impl Extensions {
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }

    pub(crate) fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Appends an attribute, which must come after all others; otherwise nothing is done and the answer is `false`.
    pub(crate) fn push(&mut self, name: ByteString, value: Value) -> bool {
        let fits = self.0.last().is_none_or(|(last, _)| **last < *name);
        if fits {
            self.0.push((name, value));
        }
        fits
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.find(name).ok().map(|index| &self.0[index].1)
    }

    /// Sets an attribute and gives the value that it had.
    pub(crate) fn insert(&mut self, name: ByteString, value: Value) -> Option<Value> {
        match self.find(&name) {
            Ok(index) => Some(std::mem::replace(&mut self.0[index].1, value)),
            Err(index) => {
                self.0.insert(index, (name, value));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Value> {
        self.find(name).ok().map(|index| self.0.remove(index).1)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&ByteString, &Value)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
