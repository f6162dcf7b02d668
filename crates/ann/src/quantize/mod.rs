//! Rotation, sketch, extended code, fast scan.
