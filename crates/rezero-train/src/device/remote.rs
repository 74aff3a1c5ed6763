//! Devices of other machines: who may name one, its token, its connection.

use burn::tensor::Device;

use crate::error::{Error, Result};

/// Whether one of a list of names is a device of another machine.
pub fn is_remote(names: &str) -> bool {
    let mut names = names.split(',').map(str::trim);
    names.any(|name| name.split(':').next() == Some("remote"))
}

/// The devices that the command line gives, else those that a file of a run or a recipe names.
///
/// A file may come from somebody else, and a device of another machine gets the weights, the data and the
/// user's token. So such a device comes from the command line alone.
///
/// # Errors
///
/// If the file names a device of another machine, and the command line none.
pub fn chosen<'a>(given: Option<&'a str>, stored: &'a str) -> Result<&'a str> {
    match given {
        Some(given) => Ok(given),
        None if !is_remote(stored) => Ok(stored),
        None => Err(Error::Device {
            name: stored.to_owned(),
            message: "its recipe names another machine, which would get the weights, the data and the token; \
                      only the command line may do that: add `--device NAME` (where a command takes keys, \
                      `device=NAME`) with this name or with auto"
                .to_owned(),
        }),
    }
}

/// The environment variable that holds the token of a `rezero serve` server, or the tokens of several.
pub const TOKEN: &str = "REZERO_TOKEN";

/// The token of the server at `host`, `HOST:PORT`, from the value of [`TOKEN`].
///
/// The value is one token, for whichever server the command line names, or a list
/// `HOST:PORT=TOKEN,HOST:PORT=TOKEN`. A list has no token for other servers.
pub fn token<'a>(value: &'a str, host: &str) -> Option<&'a str> {
    let entries = value.split(',').filter_map(|entry| {
        let (server, token) = entry.trim().split_once('=')?;
        let (_, port) = server.rsplit_once(':')?;
        port.parse::<u16>().ok().map(|_| (server, token))
    });
    let entries: Vec<(&str, &str)> = entries.collect();
    match entries.is_empty() {
        true => Some(value.trim()),
        false => {
            let own = entries.iter().find(|(server, _)| *server == host);
            own.map(|(_, token)| *token)
        }
    }
}

#[cfg(feature = "remote")]
pub(super) fn remote(address: &str) -> Result<Device, String> {
    use burn::tensor::remote::{ConnectError, RemoteHost};

    let (url, index) = match address.split_once('#') {
        Some((url, index)) => (url, index),
        None => (address, "0"),
    };
    let index: usize = index
        .parse()
        .map_err(|_| format!("`{index}` is not a device index; write remote:HOST:PORT#0"))?;
    let host = url.strip_prefix("ws://").unwrap_or(url);
    let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(_))) {
        return Err("write remote:HOST:PORT, for example remote:127.0.0.1:3000".to_owned());
    }
    let value = std::env::var(TOKEN).unwrap_or_default();
    let token = token(&value, host)
        .ok_or_else(|| format!("{TOKEN} has no token for it; add {host}=TOKEN to the list"))?;
    let server = RemoteHost::websocket(&format!("ws://{host}")).with_credential(token);
    let device = Device::remote_options(&server).device_index(index).init();
    device.map_err(|error| match error {
        ConnectError::Unauthorized if token.is_empty() => {
            format!("the server wants a token: set {TOKEN} to the one that it was started with")
        }
        ConnectError::Unauthorized => {
            format!("the server refuses the token in {TOKEN}; its log says who asked")
        }
        ConnectError::NoSuchDevice { device_count } => format!(
            "index {index} is out of range, the server has {device_count} (0 to {})",
            device_count.saturating_sub(1)
        ),
        other => {
            format!("cannot connect to `rezero serve`: {other}")
        }
    })
}

#[cfg(not(feature = "remote"))]
pub(super) fn remote(_address: &str) -> Result<Device, String> {
    Err("this binary was built without it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_comes_from_the_command_line_alone() {
        for names in ["remote:a:30", "flex, remote:a:30#1", "remote:"] {
            let message = chosen(None, names).unwrap_err().to_string();
            assert!(message.contains("only the command line"), "{message}");
            assert_eq!(chosen(Some(names), "flex").unwrap(), names);
        }
        assert_eq!(chosen(None, "cuda:0,cuda:1").unwrap(), "cuda:0,cuda:1");
        assert_eq!(chosen(Some("auto"), "remote:a:30").unwrap(), "auto");
    }

    #[test]
    fn a_token_is_for_its_server() {
        // A plain token may have any characters.
        for plain in ["abc", "YQ==", "a,b", " a\n", "a=b", ""] {
            assert_eq!(token(plain, "h:1"), Some(plain.trim()));
        }
        let list = "h:1=abc, [::1]:2=YQ==,plain";
        assert_eq!(token(list, "h:1"), Some("abc"));
        assert_eq!(token(list, "[::1]:2"), Some("YQ=="));
        for other in ["h:2", "h", "evil:1", ""] {
            assert_eq!(token(list, other), None);
        }
    }
}
