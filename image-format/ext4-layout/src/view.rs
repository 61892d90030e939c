//! The macro behind all views: named little-endian fields at fixed offsets of a byte slice.

/// Reads two bytes; a slice that is too short reads as 0 (views check their length when they are made).
pub(crate) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}

/// Reads four bytes, likewise.
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

/// Writes bytes; a slice that is too short stays as it is.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}

/// Declares a view: `getter / setter: type @ offset`.
macro_rules! view {
    ($(#[$doc:meta])* pub struct $name:ident($size:expr) { $($(#[$fdoc:meta])* $get:ident / $set:ident : $ty:tt @ $at:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name<B>(B);

        impl<B: AsRef<[u8]>> $name<B> {
            /// Returns the view, or `None` when the bytes are fewer than the structure's fixed part.
            pub fn new(bytes: B) -> Option<Self> {
                (bytes.as_ref().len() >= $size).then_some($name(bytes))
            }

            /// Returns the bytes.
            pub fn bytes(&self) -> &[u8] {
                self.0.as_ref()
            }

            $($(#[$fdoc])* pub fn $get(&self) -> $ty { view!(@get $ty, self.0.as_ref(), $at) })*
        }

        impl<B: AsRef<[u8]> + AsMut<[u8]>> $name<B> {
            /// Returns the bytes, to change them.
            pub fn bytes_mut(&mut self) -> &mut [u8] {
                self.0.as_mut()
            }

            $(#[doc = concat!("Sets what [`Self::", stringify!($get), "`] returns.")]
            pub fn $set(&mut self, value: $ty) { $crate::view::put(self.0.as_mut(), $at, &value.to_le_bytes()) })*
        }
    };
    (@get u8, $bytes:expr, $at:expr) => { $bytes.get($at).copied().unwrap_or(0) };
    (@get u16, $bytes:expr, $at:expr) => { $crate::view::get_u16($bytes, $at) };
    (@get u32, $bytes:expr, $at:expr) => { $crate::view::get_u32($bytes, $at) };
}
