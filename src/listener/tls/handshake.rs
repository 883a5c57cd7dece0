//! The TLS handshake with a client, and the ways in which it fails.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use rustls::{CertificateError, Error};
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Chosen, Session, Tls};
use crate::net::Socket;
use crate::telemetry::metrics::connections::Handshake;

/// Makes a session by then; else tells why there is none.
pub async fn accept(
    tls: Arc<Tls>,
    socket: Socket,
    deadline: Instant,
) -> Result<(TlsStream<Socket>, Session), (Handshake, io::Error)> {
    let mut unknown_name = false;
    let work = async {
        let started = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        let chosen = tls.choose(started.client_hello().server_name());
        let (site, config) = match chosen {
            Chosen::Site(site) => (site, tls.config(site)),
            Chosen::Nothing => {
                unknown_name = true;
                (0, tls.refusing())
            }
        };
        let stream = started.into_stream(Arc::clone(config)).await?;
        let session = tls.session(site, stream.get_ref().1.peer_certificates());
        Ok::<_, io::Error>((stream, session))
    };
    match tokio::time::timeout_at(deadline, work).await {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) if unknown_name => Err((Handshake::UnknownName, error)),
        Ok(Err(error)) => Err((outcome(&error), error)),
        Err(_) => Err((Handshake::Timeout, io::ErrorKind::TimedOut.into())),
    }
}

fn outcome(error: &io::Error) -> Handshake {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        let gone = matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
        return if gone { Handshake::ClientGone } else { Handshake::Malformed };
    };
    match error {
        Error::NoCertificatesPresented => Handshake::NoCertificate,
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Handshake::Expired,
            CertificateError::Revoked => Handshake::Revoked,
            _ => Handshake::Untrusted,
        },
        Error::AlertReceived(_) => Handshake::RefusedByClient,
        Error::PeerIncompatible(_) => Handshake::Incompatible,
        Error::NoApplicationProtocol => Handshake::Alpn,
        _ => Handshake::Malformed,
    }
}
