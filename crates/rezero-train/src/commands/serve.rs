//! `rezero serve`

use crate::cli::Serve;
use crate::error::{Error, Result};

#[cfg(feature = "remote")]
pub fn run(args: &Serve) -> Result<()> {
    use std::net::TcpListener;

    use burn::server::{RemoteServer, TokenAuthorizer, WebSocketTransport};

    use super::say;
    use crate::device::{self, TOKEN, select_all};

    let token = match &args.token_file {
        Some(file) => std::fs::read_to_string(file).map_err(|e| Error::io("read", file, e))?,
        None => std::env::var(TOKEN).unwrap_or_default(),
    };
    let token = device::token(&token, &args.listen).unwrap_or_default();
    let authorizer = TokenAuthorizer::new(token).map_err(|_| {
        Error::Serve(format!(
            "clients must show a token: set {TOKEN} here and there, or give --token-file here \
             (for example {TOKEN}=$(openssl rand -hex 16))"
        ))
    })?;
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
        say!("tensors and the token travel unencrypted: serve only a network that you trust");
    }
    say!(
        "serving {} on {address}; use it with {TOKEN}=… rezero train … --device remote:{address}",
        args.device
    );
    RemoteServer::new(devices)
        .with_authorizer(authorizer)
        .serve(WebSocketTransport::from_listener(listener))
        .map_err(|e| Error::Serve(e.to_string()))
}

#[cfg(not(feature = "remote"))]
pub fn run(_args: &Serve) -> Result<()> {
    Err(Error::Serve(
        "this binary was built without it; build again with --features remote".to_owned(),
    ))
}
