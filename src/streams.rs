//! Standard streams that may be closed or full: `segdist … | head`, `> /dev/full`, a terminal that is gone.
//!
//! The macros of the standard library panic there. Those of the same names in this crate lose the text instead: neither
//! a training nor an exit code depends on who listens. And no text gives a terminal orders ([`harmless`]).

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// What `print!` and `println!` do.
pub fn out(text: Arguments) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(harmless(&text.to_string()).as_bytes()).and_then(|()| stdout.flush());
    // A reader that has closed its end has seen what it wanted.
    if let Err(cause) = written
        && cause.kind() != ErrorKind::BrokenPipe
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        log::warn!("standard output cannot be written, what it should show is lost: {cause}");
    }
}

/// What `eprintln!` does.
pub fn err(text: Arguments) {
    // Nobody is left who could be told.
    let _ = io::stderr().lock().write_all(harmless(&text.to_string()).as_bytes());
}

/// The text with control characters written out (`\u{1b}`): names of files and classes come from outside, and a terminal
/// obeys what it reads.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let obeyed = |sign: char| sign.is_control() && !matches!(sign, '\n' | '\t');
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let written_out = |sign: char| if obeyed(sign) { sign.escape_default().to_string() } else { sign.to_string() };
    Cow::Owned(text.chars().map(written_out).collect())
}

macro_rules! print {
    ($($text:tt)*) => { $crate::streams::out(::std::format_args!($($text)*)) };
}

macro_rules! println {
    ($($text:tt)*) => { $crate::streams::out(::std::format_args!("{}\n", ::std::format_args!($($text)*))) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { $crate::streams::err(::std::format_args!("{}\n", ::std::format_args!($($text)*))) };
}
