//! The progress of training on rank 0: a bar on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt;
use std::io::IsTerminal;

const BAR: &str = "{elapsed_precise} {bar:30} {pos}/{len} {msg} | ETA {eta}";

/// What is shown of a step. Times, loss and accuracy are whatever mean the caller takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLine {
    /// Finished updates, over all epochs.
    pub step: u64,
    /// Steps in an epoch (TRAIN.epoch_iters).
    pub epoch_iters: u64,
    /// Seconds a step takes.
    pub step_s: f64,
    /// Seconds of it spent waiting for data.
    pub data_s: f64,
    /// Learning rate of the encoder.
    pub lr_encoder: f64,
    /// Learning rate of the decoder.
    pub lr_decoder: f64,
    /// Pixel accuracy, 0 to 1.
    pub accuracy: f64,
    /// Training loss.
    pub loss: f64,
    /// Images a second, over all ranks.
    pub images_per_s: f64,
}

impl fmt::Display for StepLine {
    /// The reference's display line (train.py); iterations are those that are done, where the reference counts from 0.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let done = self.step.saturating_sub(1);
        let length = self.epoch_iters.max(1);
        write!(f, "Epoch: [{}][{}/{}], ", done / length + 1, done % length + 1, self.epoch_iters)?;
        write!(f, "Time: {:.2}, Data: {:.2}, ", self.step_s, self.data_s)?;
        write!(f, "lr_encoder: {:.6}, lr_decoder: {:.6}, ", self.lr_encoder, self.lr_decoder)?;
        write!(f, "Accuracy: {:4.2}, Loss: {:.6}", 100.0 * self.accuracy, self.loss)
    }
}

/// Shows steps as they finish.
pub enum Progress {
    /// A bar on the terminal.
    Bar(ProgressBar),
    /// The reference's lines on standard output, when the caller finds them due.
    Lines,
    /// Nothing: another rank than 0, or `--quiet`.
    Silent,
}

impl Progress {
    /// Shows nothing unless `shown`; a bar where a person watches, that is, both standard streams are a terminal.
    pub fn new(shown: bool, first_step: u64, total_steps: u64) -> Progress {
        if !shown {
            Progress::Silent
        } else if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
            Progress::Bar(bar(ProgressDrawTarget::stderr(), first_step, total_steps))
        } else {
            Progress::Lines
        }
    }

    /// A step is done. `due`: it is one of every TRAIN.disp_iter.
    pub fn step(&self, line: &StepLine, due: bool) {
        match self {
            Progress::Bar(bar) => {
                let message =
                    format!("loss {:.4} acc {:.1}% {:.1} img/s", line.loss, 100.0 * line.accuracy, line.images_per_s);
                bar.set_message(message);
                bar.set_position(line.step);
            }
            Progress::Lines if due => println!("{line}"),
            Progress::Lines | Progress::Silent => {}
        }
    }

    /// Prints something beside the steps, without tearing the bar.
    pub fn print(&self, text: &str) {
        match self {
            Progress::Bar(bar) => bar.suspend(|| println!("{text}")),
            Progress::Lines => println!("{text}"),
            Progress::Silent => {}
        }
    }

    /// Leaves the bar as it stands.
    pub fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.abandon();
        }
    }
}

/// A bar that starts at `first` of `total`, so that a resumed run's ETA counts only its own steps.
fn bar(target: ProgressDrawTarget, first: u64, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), target).with_position(first);
    bar.set_style(ProgressStyle::with_template(BAR).expect("the template is a constant that parses"));
    bar.reset_eta();
    bar
}

/// A bar over `total` images for a verb that is not training; hidden unless `shown` on a terminal.
pub fn images(shown: bool, total: u64) -> ProgressBar {
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = bar(target, 0, total);
    bar.set_message("images");
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_references_form() {
        let line = StepLine {
            step: 5021,
            epoch_iters: 5000,
            step_s: 0.523,
            data_s: 0.006,
            lr_encoder: 0.019964,
            lr_decoder: 0.02,
            accuracy: 0.321,
            loss: 3.201234,
            images_per_s: 31.0,
        };
        let expected = "Epoch: [2][21/5000], Time: 0.52, Data: 0.01, lr_encoder: 0.019964, lr_decoder: 0.020000, \
                        Accuracy: 32.10, Loss: 3.201234";
        assert_eq!(line.to_string(), expected);
    }

    #[test]
    fn a_bar_tells_position_and_loss() {
        let bar = bar(ProgressDrawTarget::hidden(), 40, 100);
        let progress = Progress::Bar(bar.clone());
        let line = StepLine {
            step: 50,
            epoch_iters: 100,
            step_s: 0.1,
            data_s: 0.0,
            lr_encoder: 0.1,
            lr_decoder: 0.1,
            accuracy: 0.5,
            loss: 1.25,
            images_per_s: 8.0,
        };
        progress.step(&line, false);
        assert_eq!((bar.position(), bar.message().as_str()), (50, "loss 1.2500 acc 50.0% 8.0 img/s"));
    }
}
