//! TLS: which servers are trusted, and the certificate that is shown to them.

use std::{path::Path, sync::Arc};

use annals_core::{Error, ErrorKind, Result};
use kurrentdb::ClientSettings;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

pub(crate) fn config(settings: &ClientSettings) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid("TLS cannot be set up").with_source(e))?;
    let builder = if settings.is_tls_certificate_verification_enabled() {
        builder.with_root_certificates(roots(settings)?)
    } else {
        let any = Arc::new(AnyCertificate(provider));
        builder.dangerous().with_custom_certificate_verifier(any)
    };
    let mut config = match settings.user_certificate() {
        Some((certificate, key)) => {
            let chain = certificates("userCertFile", Path::new(certificate))?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| {
                invalid(format!("`userKeyFile` {key} is not a private key as PEM"))
                    .with_source(e.to_string())
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|e| {
                invalid("`userCertFile` and `userKeyFile` cannot be used").with_source(e)
            })?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into())
}

/// The authorities of `tlsCAFile`, or those that the system trusts.
fn roots(settings: &ClientSettings) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let added = match settings.tls_ca_file() {
        Some(file) => certificates("tlsCAFile", Path::new(file))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (usable, _) = roots.add_parsable_certificates(added);
    if let (0, Some(file)) = (usable, settings.tls_ca_file()) {
        return Err(invalid(format!("`tlsCAFile` {file} has no usable certificate")));
    }
    Ok(roots)
}

fn certificates(parameter: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<std::result::Result<Vec<_>, _>>();
    let message = || format!("`{parameter}` {} is not a file of PEM certificates", file.display());
    match read() {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(invalid(message())),
        Err(e) => Err(invalid(message()).with_source(e.to_string())),
    }
}

/// Takes every certificate: `tlsVerifyCert=false`.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
