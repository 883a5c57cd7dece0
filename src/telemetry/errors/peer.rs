//! The connection to the receiver of error records: plain or TLS, every wait on it bounded.

use std::io;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{timeout, timeout_at};

use super::outbox::SEND_BUFFER;
use crate::net::tls::{self, ClientTls};
use crate::net::{Socket, Stream, dial};
use crate::telemetry::settings::Logstash;

/// Where records go, and how to get there.
#[derive(Debug)]
pub(super) struct Peer {
    host: Box<str>,
    port: u16,
    tls: Option<ClientTls>,
    connect_timeout: Duration,
    timeout: Duration,
}

/// One connection to it.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    timeout: Duration,
}

impl Peer {
    /// The receiver of these settings.
    pub(super) fn new(settings: &Logstash) -> Self {
        Self {
            host: settings.host.clone(),
            port: settings.port,
            tls: settings.tls.clone(),
            connect_timeout: settings.connect_timeout,
            timeout: settings.timeout,
        }
    }

    /// Finds the address, connects and shakes hands, all within the time for it.
    pub(super) async fn connect(&self) -> Result<Connection, String> {
        let connecting = timeout(self.connect_timeout, self.try_connect());
        connecting.await.unwrap_or_else(|_| Err(format!("no connection within {:?}", self.connect_timeout)))
    }

    async fn try_connect(&self) -> Result<Connection, String> {
        let told = |error: &dyn std::error::Error| {
            error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        };
        let addresses =
            tokio::net::lookup_host((&*self.host, self.port)).await.map_err(|error| told(&error))?;
        let addresses: Vec<_> = addresses.take(MAX_ADDRESSES).collect();
        let dialed = dial(&addresses, self.connect_timeout).await.map_err(|error| told(&error))?;
        // what does not move stays here, where it is known, and not in the system's buffers
        SockRef::from(&dialed.stream).set_send_buffer_size(SEND_BUFFER).map_err(|error| told(&error))?;
        let stream = match &self.tls {
            None => Stream::Plain(Socket::tcp(dialed.stream)),
            Some(ClientTls { config, server_name }) => {
                let connected = tls::connect(config, server_name.clone(), Socket::tcp(dialed.stream)).await;
                Stream::Tls(Box::new(connected.map_err(|error| told(&error))?.0))
            }
        };
        Ok(Connection { stream, timeout: self.timeout })
    }
}

impl Connection {
    /// Hands all of it to the system. An error says nothing of how much of it has arrived.
    pub(super) async fn write(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() {
            let count = timeout(self.timeout, self.stream.write(text)).await??;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            text = &text[count..];
        }
        timeout(self.timeout, self.stream.flush()).await?
    }

    /// Comes back when the receiver has closed the connection in order, or with how it broke. What it says
    /// meanwhile is of no interest.
    pub(super) async fn closed(&mut self) -> io::Result<()> {
        let mut unread = [0; 256];
        while self.stream.read(&mut unread).await? > 0 {}
        Ok(())
    }

    /// Says that nothing more will come, and waits a moment for the receiver to have read everything.
    pub(super) async fn finish(mut self, deadline: Instant) {
        let goodbye = async {
            self.stream.shutdown().await?;
            self.closed().await
        };
        let _ = timeout_at(deadline.min(Instant::now() + GOODBYE).into(), goodbye).await;
    }
}

/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 32;

/// How long the receiver may take to close, once it has been told that nothing more will come.
const GOODBYE: Duration = Duration::from_secs(1);
