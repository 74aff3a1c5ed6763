//! `rezero serve`
//!
//! Burn's server reads a client's first message, of up to 1 GiB, before it looks at the token, and has no limit for
//! connections or time: docs/BACKENDS.md. Ours are the token's length and the lines of the log.

use crate::cli::Serve;
use crate::error::{Error, Result};

#[cfg(feature = "remote")]
pub fn run(args: &Serve) -> Result<()> {
    use std::net::TcpListener;

    use burn::server::{RemoteServer, TokenAuthorizer, WebSocketTransport};

    use crate::device::{TOKEN, select_all};
    use crate::say::{say, write_log};

    let token = token(args)?;
    let authorizer =
        TokenAuthorizer::new(token.as_str()).map_err(|e| Error::Serve(e.to_string()))?;
    let shares = |name: &str| !matches!(name.split(':').next(), Some("tch" | "remote"));
    if let Some(name) = args.device.split(',').find(|name| !shares(name.trim())) {
        return Err(Error::Serve(format!(
            "`{name}` cannot be served, by Burn's limits; every backend but tch and remote can"
        )));
    }
    let devices = select_all(&args.device)?;
    let listener = TcpListener::bind(&args.listen)
        .map_err(|e| Error::Serve(format!("cannot listen on {}: {e}", args.listen)))?;
    let address = listener
        .local_addr()
        .map_err(|e| Error::Serve(format!("cannot listen on {}: {e}", args.listen)))?;
    if !address.ip().is_loopback() {
        say!(
            "tensors and the token travel unencrypted, and a client can fill this machine's memory \
             before it shows the token: serve only a network that you trust"
        );
    }
    say!(
        "serving {} on {address}; use it with {TOKEN}=… rezero train … --device remote:{address}",
        args.device
    );
    write_log();
    RemoteServer::new(devices)
        .with_authorizer(authorizer)
        .serve(WebSocketTransport::from_listener(listener))
        .map_err(|e| Error::Serve(e.to_string()))
}

/// The fewest characters of a token.
#[cfg(any(feature = "remote", test))]
const SHORTEST: usize = 16;

/// The token that clients must show.
#[cfg(any(feature = "remote", test))]
fn token(args: &Serve) -> Result<String> {
    use crate::device::{self, TOKEN};

    let value = match &args.token_file {
        Some(file) => std::fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?,
        None => std::env::var(TOKEN).unwrap_or_default(),
    };
    let example = format!("(for example {TOKEN}=$(openssl rand -hex 16))");
    match device::token(&value, &args.listen).unwrap_or_default() {
        "" => Err(Error::Serve(format!(
            "clients must show a token: set {TOKEN} here and there, or give --token-file here {example}"
        ))),
        token if token.chars().count() < SHORTEST => Err(Error::Serve(format!(
            "the token has {} characters, but a token that cannot be guessed has {SHORTEST} or more {example}",
            token.chars().count()
        ))),
        token => Ok(token.to_owned()),
    }
}

#[cfg(not(feature = "remote"))]
pub fn run(_args: &Serve) -> Result<()> {
    Err(Error::Serve(
        "this binary was built without it; build again with --features remote".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_16_characters() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let of = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let args = Serve {
                device: String::new(),
                listen: String::new(),
                token_file: Some(file.clone()),
            };
            token(&args).map_err(|e| e.to_string())
        };
        let refusal = of(" 0123456789abcde\n").unwrap_err();
        assert!(refusal.contains("has 15 characters"), "{refusal}");
        assert!(!refusal.contains("0123"), "{refusal}");
        assert!(of(" \n").unwrap_err().contains("must show a token"));
        assert_eq!(of("0123456789abcdef\n").unwrap(), "0123456789abcdef");
        assert!(of(&"ä".repeat(15)).is_err() && of(&"ä".repeat(16)).is_ok());
    }
}
