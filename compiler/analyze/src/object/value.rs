//! What a register or stack slot may hold: the lattice of the data-flow analysis.

/// Why nothing is known about a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It was read from memory that the program can change.
    Memory,
    /// A call or system call returned it.
    Result,
    /// More values than the analysis keeps.
    Many,
    /// An instruction that the analysis does not model made it.
    Computed,
}

/// How many constants a value keeps apart. Sites that choose between more numbers than this are reported as unknown.
const MAX: usize = 12;

/// A set of possible values: constants, the values of the function's own parameters, or anything.
///
/// The empty set means "no execution gets here". Joining is union; when the constants outgrow [`MAX`] the value becomes unknown, so chains are finite.
#[derive(Clone, Copy)]
pub struct Value {
    top: Option<Why>,
    /// Bit n: parameter n, see [`Value::param`].
    params: u64,
    len: u8,
    consts: [u64; MAX],
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.top == other.top && self.params == other.params && self.consts() == other.consts()
    }
}

/// Parameters 0 to 15 are the registers at function entry, 16 onwards the stack arguments `[rsp + 8]`, `[rsp + 16]`, ... at function entry.
pub type Param = u8;

/// The first stack argument.
pub const FIRST_STACK_PARAM: Param = 16;

impl Value {
    /// Anything.
    pub const fn top(why: Why) -> Value {
        Value { top: Some(why), params: 0, len: 0, consts: [0; MAX] }
    }

    /// One constant.
    pub fn constant(value: u64) -> Value {
        let mut v = Value { top: None, params: 0, len: 1, consts: [0; MAX] };
        v.consts[0] = value;
        v
    }

    /// A parameter of the function that is analysed.
    pub fn param(param: Param) -> Value {
        Value { top: None, params: 1 << param, len: 0, consts: [0; MAX] }
    }

    /// The set of these constants.
    pub fn of(values: impl IntoIterator<Item = u64>) -> Value {
        let mut out = Value { top: None, params: 0, len: 0, consts: [0; MAX] };
        for v in values {
            out.insert(v);
        }
        out
    }

    fn insert(&mut self, value: u64) {
        if self.top.is_some() {
            return;
        }
        let n = usize::from(self.len);
        match self.consts[..n].binary_search(&value) {
            Ok(_) => {}
            Err(_) if n == MAX => *self = Value::top(Why::Many),
            Err(at) => {
                self.consts.copy_within(at..n, at + 1);
                self.consts[at] = value;
                self.len += 1;
            }
        }
    }

    /// The constants among the possible values, ascending.
    pub fn consts(&self) -> &[u64] {
        &self.consts[..usize::from(self.len)]
    }

    /// The parameters among the possible values.
    pub fn params(&self) -> impl Iterator<Item = Param> + use<> {
        let params = self.params;
        (0..64).filter(move |p| params >> p & 1 != 0)
    }

    /// Why the value may be anything, if so.
    pub fn unknown(&self) -> Option<Why> {
        self.top
    }

    /// The value, when it is one constant.
    pub fn single(&self) -> Option<u64> {
        (self.top.is_none() && self.params == 0 && self.len == 1).then_some(self.consts[0])
    }

    /// Whether only constants are possible.
    pub fn is_constant(&self) -> bool {
        self.top.is_none() && self.params == 0
    }

    /// Returns the union.
    pub fn join(&self, other: &Value) -> Value {
        if self.top.is_some() {
            return *self;
        }
        if other.top.is_some() {
            return *other;
        }
        let mut out = *self;
        out.params |= other.params;
        for &c in other.consts() {
            out.insert(c);
        }
        out
    }

    /// Applies `f` to every constant. Parameters pass through when `keeps_params` says that `f` does not change a system call number.
    pub fn map(&self, keeps_params: bool, f: impl Fn(u64) -> u64) -> Value {
        if self.top.is_some() {
            return *self;
        }
        if self.params != 0 && !keeps_params {
            return Value::top(Why::Computed);
        }
        let mut out = Value::of(self.consts().iter().map(|&c| f(c)));
        out.params = self.params;
        out
    }

    /// Applies `f` to every pair of constants; anything else makes the result unknown.
    pub fn zip(&self, other: &Value, f: impl Fn(u64, u64) -> u64) -> Value {
        if !self.is_constant() || !other.is_constant() {
            return Value::top(self.top.or(other.top).unwrap_or(Why::Computed));
        }
        Value::of(self.consts().iter().flat_map(|&a| other.consts().iter().map(move |&b| (a, b))).map(|(a, b)| f(a, b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn union_is_sorted_and_bounded() {
        let v = Value::of([3, 1]).join(&Value::of([2, 3]));
        assert_eq!(v.consts(), [1, 2, 3]);
        assert_eq!(Value::of(0..13).unknown(), Some(Why::Many));
        assert_eq!(Value::constant(1).join(&Value::top(Why::Memory)).unknown(), Some(Why::Memory));
    }

    #[test]
    fn arithmetic_crosses_constants_and_forgets_parameters() {
        assert_eq!(Value::of([0, 1]).zip(&Value::constant(19), |a, b| a + b).consts(), [19, 20]);
        assert_eq!(Value::param(7).map(true, |c| c).params().collect::<Vec<_>>(), [7]);
        assert_eq!(Value::param(7).zip(&Value::constant(1), |a, b| a + b).unknown(), Some(Why::Computed));
    }
}
