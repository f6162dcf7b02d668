//! The `ivflsh` access method.
