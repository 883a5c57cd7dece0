//! How a listener's connections learn that the gateway goes down: three moments, each final.

use tokio_util::sync::CancellationToken;

/// The three moments, shared by all connections.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    leaving: CancellationToken,
    closing: CancellationToken,
    cut: CancellationToken,
}

impl Drain {
    /// From now on every answer says that its connection ends; new ones are still accepted.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// From now on nothing is accepted, and connections close when their exchanges are over.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// From now on nothing is waited for.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Whether the gateway is leaving.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Ends when the gateway is leaving.
    pub async fn leaving(&self) {
        self.leaving.cancelled().await;
    }

    /// Ends when connections are to close.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Ends when nothing is waited for any more.
    pub async fn cutting(&self) {
        self.cut.cancelled().await;
    }
}
