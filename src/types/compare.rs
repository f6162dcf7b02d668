//! The six comparisons and the btree support function of a type.

/// `comparison_functions! { type, compare function, names of <, <=, =, <>, >=, >, cmp }`
macro_rules! comparison_functions {
    ($ty:ty, $compare:path, $lt:ident, $le:ident, $eq:ident, $ne:ident, $ge:ident, $gt:ident, $cmp:ident) => {
        $crate::pg::function::pg_function! {
            fn $lt(a: $ty, b: $ty) -> bool { Ok($compare(&a, &b).is_lt()) }
        }
        $crate::pg::function::pg_function! {
            fn $le(a: $ty, b: $ty) -> bool { Ok($compare(&a, &b).is_le()) }
        }
        $crate::pg::function::pg_function! {
            fn $eq(a: $ty, b: $ty) -> bool { Ok($compare(&a, &b).is_eq()) }
        }
        $crate::pg::function::pg_function! {
            fn $ne(a: $ty, b: $ty) -> bool { Ok($compare(&a, &b).is_ne()) }
        }
        $crate::pg::function::pg_function! {
            fn $ge(a: $ty, b: $ty) -> bool { Ok($compare(&a, &b).is_ge()) }
        }
        $crate::pg::function::pg_function! {
            fn $gt(a: $ty, b: $ty) -> bool { Ok($compare(&a, &b).is_gt()) }
        }
        $crate::pg::function::pg_function! {
            fn $cmp(a: $ty, b: $ty) -> i32 { Ok($compare(&a, &b) as i32) }
        }
    };
}
pub(crate) use comparison_functions;
