//! Values that may be absent, which NRI wraps into messages.

use crate::proto::{
    OptionalBool, OptionalInt, OptionalInt64, OptionalRepeatedString, OptionalString, OptionalUInt32, OptionalUInt64,
};

macro_rules! wraps {
    ($($wrapper:ident($value:ty)),* $(,)?) => {$(
        impl From<$value> for $wrapper {
            fn from(value: $value) -> $wrapper {
                $wrapper { value }
            }
        }
    )*};
}

wraps! {
    OptionalBool(bool),
    OptionalInt(i64),
    OptionalInt64(i64),
    OptionalRepeatedString(Vec<String>),
    OptionalString(String),
    OptionalUInt32(u32),
    OptionalUInt64(u64),
}
