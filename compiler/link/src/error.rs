//! What can be wrong with a link, as data; the text is one line per problem.

use std::fmt;

/// A place in an input object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The archive member, or the number of the extra object.
    pub object: String,
    /// The section.
    pub section: String,
    /// The function or datum whose symbol covers the place.
    pub function: Option<String>,
    /// Bytes from the section's start.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:({}+{:#x})", self.object, self.section, self.offset)?;
        match &self.function {
            Some(function) => write!(f, " in `{function}`"),
            None => Ok(()),
        }
    }
}

/// One thing that prevents the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The archive cannot be read.
    Archive {
        /// Why.
        reason: String,
    },
    /// An object cannot be read, or uses what the kernel must not contain.
    Object {
        /// Which.
        object: String,
        /// Why.
        reason: String,
    },
    /// No object defines a root symbol.
    UndefinedRoot {
        /// The symbol.
        symbol: String,
    },
    /// No object defines a symbol that live code refers to.
    Undefined {
        /// The symbol.
        symbol: String,
        /// The first places that refer to it.
        referrers: Vec<Place>,
        /// How many places do.
        count: usize,
    },
    /// Several objects define a symbol strongly that live code refers to.
    Duplicate {
        /// The symbol.
        symbol: String,
        /// All definitions.
        definitions: Vec<Place>,
    },
    /// An address does not fit where it has to go.
    Overflow {
        /// What the place refers to.
        symbol: String,
        /// The value, before it is cut.
        value: i128,
        /// The relocation's name.
        relocation: String,
        /// Where it has to go.
        place: Place,
    },
    /// A relocation of a kind that makes no sense here, or outside its section.
    Relocation {
        /// What is wrong.
        reason: String,
        /// Where.
        place: Place,
    },
    /// A live section holds thread-local data, which a kernel does not have.
    ThreadLocal {
        /// The section.
        place: Place,
    },
    /// A live section is both writable and executable.
    WritableCode {
        /// The section.
        place: Place,
    },
    /// The image would be larger than the 1 GiB that 32-bit displacements are safe in.
    TooLarge {
        /// Its size.
        len_bytes: u64,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Archive { reason } => write!(f, "cannot read the module archive: {reason}"),
            Problem::Object { object, reason } => write!(f, "cannot link `{object}`: {reason}"),
            Problem::UndefinedRoot { symbol } => write!(f, "undefined root symbol `{symbol}`"),
            Problem::Undefined { symbol, referrers, count } => {
                write!(f, "undefined symbol `{symbol}`")?;
                for (i, place) in referrers.iter().enumerate() {
                    write!(f, "{} {place}", if i == 0 { ", referred to by" } else { "," })?;
                }
                match count - referrers.len() {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Problem::Duplicate { symbol, definitions } => {
                write!(f, "duplicate symbol `{symbol}`, defined at")?;
                definitions.iter().enumerate().try_for_each(|(i, place)| write!(f, "{} {place}", if i == 0 { "" } else { " and" }))
            }
            Problem::Overflow { symbol, value, relocation, place } => {
                let sign = if *value < 0 { "-" } else { "" };
                write!(f, "relocation {relocation} against `{symbol}` does not fit: {sign}{:#x} at {place}", value.unsigned_abs())
            }
            Problem::Relocation { reason, place } => write!(f, "{reason} at {place}"),
            Problem::ThreadLocal { place } => write!(f, "thread-local data in the kernel: {place}"),
            Problem::WritableCode { place } => write!(f, "section is writable and executable: {place}"),
            Problem::TooLarge { len_bytes } => write!(f, "the kernel would be {len_bytes} bytes; the limit is 1 GiB"),
        }
    }
}

/// Everything that prevents a link; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkError {
    /// The problems, in a fixed order.
    pub problems: Vec<Problem>,
}

impl From<Problem> for LinkError {
    fn from(problem: Problem) -> LinkError {
        LinkError { problems: vec![problem] }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems.iter().enumerate().try_for_each(|(i, p)| write!(f, "{}{p}", if i == 0 { "" } else { "\n" }))
    }
}

impl std::error::Error for LinkError {}
