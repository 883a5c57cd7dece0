//! The client of the lint: pays a visit over HTTP/1.1, HTTP/2 or what is neither, in plain text or over TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::visit::{Message, Parts, Visit};

/// Sends a visit's request and reads until the gateway has answered it or closes.
pub(super) async fn pay(address: SocketAddr, tls: bool, visit: &Visit) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&visit.before).await?;
    if !tls {
        return exchange(stream, "http", &visit.message).await;
    }
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = config.with_no_client_auth();
    let protocol: &[u8] = if matches!(visit.message, Message::Http2(_)) { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(visit.server_name.clone()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    exchange(stream, "https", &visit.message).await
}

async fn exchange<S>(mut stream: S, scheme: &str, message: &Message) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match message {
        Message::Bytes(bytes) => {
            stream.write_all(bytes).await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        }
        Message::Http2(parts) => http2(stream, scheme, parts).await.map_err(io::Error::other),
    }
}

async fn http2<S>(stream: S, scheme: &str, parts: &Parts) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut request = Request::builder()
        .method(&*parts.method)
        .uri(format!("{scheme}://{}{}", parts.host, parts.target))
        .body(())
        .expect("the lint writes valid requests");
    *request.headers_mut() = map(&parts.fields);
    client = client.ready().await?;
    let (answer, mut body) = client.send_request(request, parts.body.is_empty())?;
    if !parts.body.is_empty() {
        // a few hundred bytes, for which there is a window
        body.send_data(Bytes::copy_from_slice(&parts.body), parts.trailers.is_empty())?;
        if !parts.trailers.is_empty() {
            body.send_trailers(map(&parts.trailers))?;
        }
    }
    let mut answer = answer.await?.into_body();
    while let Some(data) = answer.data().await {
        let length = data?.len();
        answer.flow_control().release_capacity(length)?;
    }
    answer.trailers().await.map(drop)
}

fn map(fields: &[(String, String)]) -> HeaderMap {
    let field = |(name, value): &(String, String)| {
        let name = HeaderName::try_from(name).expect("the lint writes valid names");
        (name, HeaderValue::try_from(value).expect("and valid values"))
    };
    fields.iter().map(field).collect()
}

/// Whoever answers is the gateway on its stage: the certificate does not matter.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
