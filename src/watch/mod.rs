//! `segdist watch`: a run under way, drawn in the terminal from its history.
//!
//! It only reads DIR, so it works from another shell or another node, before a run starts, while it writes, and after
//! it was resumed. [`follow`] reads what is new in metrics.jsonl, [`status`] keeps what is to be shown, [`frame`] draws
//! it. Where standard output is no terminal, one plain frame is printed instead.

pub mod follow;
pub mod frame;
pub mod process;
pub mod status;

use anyhow::Context;
use follow::Follower;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use signal_hook::consts::TERM_SIGNALS;
use status::Status;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the history is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How long a signal may wait for an answer.
const NAP: Duration = Duration::from_millis(100);

/// Shows the run in `dir` until it is finished or the user leaves; the last frame stays on the screen, in plain text.
///
/// # Errors
/// A history that is there and cannot be read; a terminal that cannot be drawn on.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    let mut watched = Watched::new(dir);
    watched.read()?;
    if std::io::stdout().is_terminal() {
        let mut terminal = ratatui::try_init().context("this terminal cannot be drawn on")?;
        let ended = watched.draw_until_finished(&mut terminal);
        ratatui::try_restore().context("the terminal cannot be set back; the command `reset` does it")?;
        ended?;
    }
    print!("{}", frame::plain(&watched.status));
    Ok(())
}

/// A run's folder and what is known of it.
struct Watched {
    follower: Follower,
    status: Status,
}

impl Watched {
    fn new(dir: &Path) -> Watched {
        Watched { follower: Follower::new(dir), status: Status::new(dir) }
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let news = self.follower.read()?;
        if news.anew {
            self.status.forget();
        }
        news.lines.iter().for_each(|line| self.status.add(line));
        self.status.written = news.written;
        self.status.read_total();
        Ok(())
    }

    fn draw_until_finished(&mut self, terminal: &mut DefaultTerminal) -> anyhow::Result<()> {
        let asked_to_end = Arc::new(AtomicBool::new(false));
        for signal in TERM_SIGNALS {
            signal_hook::flag::register(*signal, asked_to_end.clone()).context("signals cannot be listened to")?;
        }
        while !self.status.finished {
            terminal.draw(|frame| frame::draw(frame, &self.status)).context("the terminal cannot be drawn on")?;
            let next = Instant::now() + EVERY;
            while Instant::now() < next && !asked_to_end.load(Ordering::Relaxed) {
                match event::poll(NAP).and_then(|ready| ready.then(event::read).transpose()) {
                    Ok(Some(Event::Key(key))) if leaves(key) => return Ok(()),
                    Ok(Some(Event::Resize(..))) => break,
                    Ok(_) => {}
                    Err(cause) => return Err(cause).context("the keyboard cannot be read"),
                }
            }
            if asked_to_end.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.read()?;
        }
        Ok(())
    }
}

/// q, Escape and Ctrl-C leave; in a drawn-on terminal Ctrl-C is a key, no signal.
fn leaves(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    matches!((key.code, control), (KeyCode::Char('q') | KeyCode::Esc, _) | (KeyCode::Char('c'), true))
}
