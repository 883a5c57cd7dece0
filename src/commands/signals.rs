//! What the operating system may ask of a running command.

use std::io;

use tokio::signal::unix::{self, SignalKind, signal};

/// A signal's meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGUSR1.
    Reopen,
    /// SIGHUP.
    Reload,
}

/// The signals since this was made.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    reopen: unix::Signal,
    reload: unix::Signal,
}

impl Signals {
    /// Takes the signals over from their defaults, which would end the process.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.reopen.recv() => Signal::Reopen,
            _ = self.reload.recv() => Signal::Reload,
        }
    }

    /// The next signal that asks to stop.
    pub async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}
