//! Reading numbers from, and writing them to, the text representation.

use super::function::IntoReturn;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use std::ffi::{CStr, c_char, c_int};

/// A position in the text of a value.
pub struct Scanner<'a> {
    text: &'a CStr,
    at: usize,
}

/// A number read by [`Scanner::float`].
#[derive(Debug, PartialEq)]
pub struct Float<'a> {
    pub value: f32,
    /// The characters it was read from.
    pub token: &'a [u8],
    /// Finite, but too large for f32 (`value` is infinite).
    pub overflow: bool,
    /// Not zero, but too small for f32 (`value` is zero).
    pub underflow: bool,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a CStr) -> Self {
        Scanner { text, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.to_bytes_with_nul()[self.at..]
    }

    /// The next byte, 0 at the end.
    pub fn peek(&self) -> u8 {
        self.rest()[0]
    }

    pub fn at_end(&self) -> bool {
        self.peek() == 0
    }

    /// Consume `byte` if it is next.
    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += found as usize;
        found
    }

    pub fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) {
            self.at += 1;
        }
    }

    /// Read what C's `strtof` reads: decimal or hexadecimal, `inf`, `infinity`, `nan`; None if there is no number.
    pub fn float(&mut self) -> Option<Float<'a>> {
        let rest = self.rest();
        let sign = matches!(rest[0], b'+' | b'-') as usize;
        let body = &rest[sign..];
        if starts_hexadecimal(body) {
            return self.hexadecimal_float(sign);
        }
        let Some(len) = decimal_len(body) else { return self.special_float(sign) };
        let token = &rest[..sign + len];
        let value: f32 = std::str::from_utf8(token).ok()?.parse().ok()?;
        self.at += token.len();
        let underflow = value == 0.0 && mantissa_is_nonzero(token, b"eE");
        Some(Float { value, token, overflow: value.is_infinite(), underflow })
    }

    fn special_float(&mut self, sign: usize) -> Option<Float<'a>> {
        let rest = self.rest();
        let (value, len) = [("infinity", f32::INFINITY), ("inf", f32::INFINITY), ("nan", f32::NAN)]
            .into_iter()
            .find(|(word, _)| {
                rest[sign..].get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
            })
            .map(|(word, value)| (value, sign + word.len()))?;
        let value = if rest[0] == b'-' { -value } else { value };
        self.at += len;
        Some(Float { value, token: &rest[..len], overflow: false, underflow: false })
    }

    /// Rare enough to leave to the C library.
    #[cold]
    fn hexadecimal_float(&mut self, sign: usize) -> Option<Float<'a>> {
        let rest = self.rest();
        let mut end: *mut c_char = std::ptr::null_mut();
        // SAFETY: `rest` ends with the NUL of a CStr; `end` is set to a position inside it.
        let (value, len) = unsafe {
            let value = libc::strtof(rest.as_ptr().cast(), &mut end);
            (value, end.offset_from(rest.as_ptr().cast()) as usize)
        };
        if len == 0 {
            return None;
        }
        self.at += len;
        let token = &rest[..len];
        let underflow = value == 0.0 && mantissa_is_nonzero(&token[sign + 2..], b"pP");
        Some(Float { value, token, overflow: value.is_infinite(), underflow })
    }

    /// Read a decimal integer, saturating at the ends of i64; None if there is none.
    pub fn integer(&mut self) -> Option<i64> {
        let rest = self.rest();
        let sign = matches!(rest[0], b'+' | b'-') as usize;
        let digits = count_digits(&rest[sign..]);
        if digits == 0 {
            return None;
        }
        self.at += sign + digits;
        let negative = rest[0] == b'-';
        let value = rest[sign..sign + digits].iter().fold(0i64, |value, digit| {
            let digit = i64::from(digit - b'0');
            value.saturating_mul(10).saturating_add(if negative { -digit } else { digit })
        });
        Some(value)
    }
}

fn count_digits(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).count()
}

fn starts_hexadecimal(text: &[u8]) -> bool {
    text[0] == b'0'
        && matches!(text[1], b'x' | b'X')
        && (text[2].is_ascii_hexdigit() || (text[2] == b'.' && text[3].is_ascii_hexdigit()))
}

/// Length of the unsigned decimal number that `text` (NUL-terminated) begins with.
fn decimal_len(text: &[u8]) -> Option<usize> {
    let whole = count_digits(text);
    let mut len = whole;
    if text[len] == b'.' {
        let fraction = count_digits(&text[len + 1..]);
        if whole + fraction == 0 {
            return None;
        }
        len += 1 + fraction;
    }
    if len == 0 {
        return None;
    }
    if matches!(text[len], b'e' | b'E') {
        let sign = matches!(text[len + 1], b'+' | b'-') as usize;
        let exponent = count_digits(&text[len + 1 + sign..]);
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    Some(len)
}

fn mantissa_is_nonzero(token: &[u8], exponent_marks: &[u8]) -> bool {
    token.iter().take_while(|b| !exponent_marks.contains(b)).any(|b| b.is_ascii_alphanumeric() && *b != b'0')
}

// PostgreSQL's own shortest round-trip output, so that a vector prints as the same float4 would. It never raises, so it
// is called without pgrx's guard (which costs more than the conversion).
unsafe extern "C" {
    fn float_to_shortest_decimal_bufn(value: f32, result: *mut c_char) -> c_int;
}

/// Most characters a float4 can take, PostgreSQL's FLOAT_SHORTEST_DECIMAL_LEN without the NUL.
pub const FLOAT_LEN: usize = 15;

/// Text being written, a palloc'd C string in the end.
pub struct TextWriter {
    start: *mut u8,
    len: usize,
    capacity: usize,
}

impl TextWriter {
    /// Room for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        // One byte for the NUL, and the float output may touch its full buffer.
        // SAFETY: palloc returns that many bytes or raises.
        let start = unsafe { pg_sys::palloc(capacity + FLOAT_LEN + 2).cast() };
        TextWriter { start, len: 0, capacity }
    }

    pub fn push(&mut self, byte: u8) {
        assert!(self.len < self.capacity);
        // SAFETY: within the capacity.
        unsafe { self.start.add(self.len).write(byte) };
        self.len += 1;
    }

    pub fn push_float(&mut self, value: f32) {
        assert!(self.len + FLOAT_LEN <= self.capacity + FLOAT_LEN);
        // SAFETY: `new` left FLOAT_LEN + 1 bytes beyond the capacity.
        self.len += unsafe { float_to_shortest_decimal_bufn(value, self.start.add(self.len).cast()) } as usize;
    }

    pub fn push_integer(&mut self, value: i64) {
        for byte in value.to_string().bytes() {
            self.push(byte);
        }
    }
}

impl IntoReturn for TextWriter {
    unsafe fn into_return(self, _: FunctionCallInfo) -> Datum {
        // SAFETY: there is room for the NUL behind the capacity.
        unsafe { self.start.add(self.len).write(0) };
        Datum::from(self.start)
    }
}

/// One number as PostgreSQL prints it, for messages.
pub fn float_text(value: f32) -> String {
    let mut buffer = [0u8; FLOAT_LEN + 1];
    // SAFETY: the buffer is as large as PostgreSQL asks for.
    let len = unsafe { float_to_shortest_decimal_bufn(value, buffer.as_mut_ptr().cast()) } as usize;
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn float(text: &str) -> Option<(f32, String, bool, bool)> {
        let text = CString::new(text).unwrap();
        let mut scanner = Scanner::new(&text);
        scanner.float().map(|f| {
            let token = String::from_utf8(f.token.to_vec()).unwrap();
            assert_eq!(scanner.at, token.len());
            (f.value, token, f.overflow, f.underflow)
        })
    }

    #[test]
    fn floats_are_read_as_strtof_reads_them() {
        let cases = [
            "1",
            "-1",
            "+1",
            "1.",
            ".5",
            "-.5",
            "1e3",
            "1E+3",
            "1e-3",
            "1e",
            "1e+",
            "1.5x",
            "0x10",
            "0x",
            "0x.8p1",
            "-0x1.8p-3",
            "0xg",
            "1e400",
            "-1e400",
            "1e-46",
            "-1e-46",
            "1e-45",
            "0e-400",
            "0.0000",
            "inf",
            "-Infinity",
            "infinit",
            "nan",
            "NaN(x)",
            "",
            "-",
            ".",
            "+.",
            "e5",
            "hello",
            "3.4028235e38",
            "3.4028236e38",
            "16777217",
            "1_0",
            "123456789012345678901234567890",
            "0x1p-200",
            "0x1p+200",
            "00012",
            "-0",
            "1,2",
        ];
        for case in cases {
            let text = CString::new(case).unwrap();
            let mut end: *mut c_char = std::ptr::null_mut();
            // SAFETY: a NUL-terminated string.
            let (want, len) = unsafe {
                let want = libc::strtof(text.as_ptr(), &mut end);
                (want, end.offset_from(text.as_ptr()) as usize)
            };
            match float(case) {
                None => assert_eq!(len, 0, "{case}"),
                Some((got, token, ..)) => {
                    assert_eq!(
                        got.to_bits() & 0x7fff_ffff >> (got.is_nan() as u32 * 31),
                        want.to_bits() & 0x7fff_ffff >> (want.is_nan() as u32 * 31),
                        "{case}"
                    );
                    if !got.is_nan() {
                        assert_eq!(got.is_sign_negative(), want.is_sign_negative(), "{case}");
                        assert_eq!(token.len(), len, "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn range_errors_are_told_from_zero_and_infinity() {
        assert_eq!(float("1e400"), Some((f32::INFINITY, "1e400".into(), true, false)));
        assert_eq!(float("-4e38]"), Some((f32::NEG_INFINITY, "-4e38".into(), true, false)));
        assert_eq!(float("1e-46,"), Some((0.0, "1e-46".into(), false, true)));
        assert_eq!(float("0x1p-200"), Some((0.0, "0x1p-200".into(), false, true)));
        assert_eq!(float("0.0e-99"), Some((0.0, "0.0e-99".into(), false, false)));
        assert_eq!(float("0x0p-99"), Some((0.0, "0x0p-99".into(), false, false)));
        assert!(!float("inf").unwrap().2);
    }

    #[test]
    fn integers_saturate() {
        let read = |text: &str| Scanner::new(&CString::new(text).unwrap()).integer();
        assert_eq!(read("12a"), Some(12));
        assert_eq!(read("-7"), Some(-7));
        assert_eq!(read("+7"), Some(7));
        assert_eq!(read("9223372036854775808"), Some(i64::MAX));
        assert_eq!(read("-9223372036854775809"), Some(i64::MIN));
        assert_eq!(read("-"), None);
        assert_eq!(read(""), None);
        assert_eq!(read("x"), None);
    }
}
