use std::fmt;

use bytestring::ByteString;

/// One thing that is wrong with an event, named by its attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The attribute (`id`, `data`, an extension's name), or the empty string where the whole event is meant.
    pub attribute: ByteString,
    /// What is wrong and how to mend it, in one sentence without a full stop.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attribute.is_empty() {
            formatter.write_str(&self.reason)
        } else {
            write!(formatter, "{}: {}", self.attribute, self.reason)
        }
    }
}

/// Everything that is wrong with an event; never empty when it is returned as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Adds a fault of an attribute.
    pub fn push(&mut self, attribute: impl Into<ByteString>, reason: impl Into<String>) {
        self.0.push(Fault { attribute: attribute.into(), reason: reason.into() });
    }

    /// Whether nothing was found wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("; ")?;
            }
            fault.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
