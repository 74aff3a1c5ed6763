//! The proxy for an address, from the variables that curl reads.
//!
//! | variable | for |
//! | - | - |
//! | `https_proxy`, `HTTPS_PROXY` | `https://` |
//! | `http_proxy` | `http://`; curl leaves `HTTP_PROXY` out, which a web server sets from a request's header |
//! | `all_proxy`, `ALL_PROXY` | both, if the variables before are not set |
//! | `no_proxy`, `NO_PROXY` | hosts without a proxy, separated by commas or blanks: a name and all names that end in it, an IP address, a block such as `10.0.0.0/8`, or `*` alone for all |
//!
//! A proxy without a port has 1080. Unlike curl, an `http://` address too is reached by CONNECT, and an address that redirects keeps
//! the proxy of the first one.

use std::net::IpAddr;

use ureq::Proxy;

/// The proxy for `url`, with the name of its variable; none for hosts that need none and for this machine.
pub(super) fn proxy_for(
    url: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, Result<Proxy, ureq::Error>)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = host_of(rest);
    let set = |name: &'static str| {
        let value = variable(name)?;
        Some((name, value)).filter(|(_, value)| !value.trim().is_empty())
    };
    let bypassed = set("no_proxy").or_else(|| set("NO_PROXY"));
    let is_bypassed = bypassed.is_some_and(|(_, list)| {
        let mut entries = list.split([',', ' ', '\t']);
        list.trim() == "*" || entries.any(|entry| matches(entry, host))
    });
    // A proxy cannot reach this machine's own addresses.
    if is_bypassed || ["127.0.0.1", "localhost", "::1"].contains(&host) {
        return None;
    }
    let names: &[&'static str] = match scheme {
        "https" => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        _ => &["http_proxy", "all_proxy", "ALL_PROXY"],
    };
    let (name, value) = names.iter().copied().find_map(set)?;
    // Without a scheme, it is a proxy that speaks HTTP.
    let value = value.trim();
    let value = match value.contains("://") {
        true => value.to_owned(),
        false => format!("http://{value}"),
    };
    Some((name, Proxy::new(&with_port(value))))
}

/// The address of a proxy, with the port that curl takes where there is none.
fn with_port(address: String) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address;
    };
    let rest = rest.trim_end_matches('/');
    let host = rest.rsplit('@').next().unwrap_or_default();
    // The colons of an IPv6 address stand in brackets.
    let after = host.rsplit(']').next().unwrap_or_default();
    match after.contains(':') {
        true => format!("{scheme}://{rest}"),
        false => format!("{scheme}://{rest}:1080"),
    }
}

/// The host of an address after its `://`.
fn host_of(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Whether an entry of `no_proxy` is about `host`.
fn matches(entry: &str, host: &str) -> bool {
    let entry = entry.trim().trim_end_matches('.');
    if let Ok(address) = host.parse::<IpAddr>() {
        let (block, length) = match entry.split_once('/') {
            Some((block, length)) => (block, length.parse().ok()),
            None => (entry, Some(128)),
        };
        let block = block.trim_matches(['[', ']']).parse();
        return matches!((block, length), (Ok(block), Some(n)) if in_block(address, block, n));
    }
    let name = entry.trim_start_matches('.').to_ascii_lowercase();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let before = host.strip_suffix(&name);
    !name.is_empty() && before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether the first `length` bits of both addresses agree.
fn in_block(address: IpAddr, block: IpAddr, length: u32) -> bool {
    let differ = match (address, block) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= length.min(128) || differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, set: &[(&str, &str)]) -> Option<String> {
        let variable = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let (name, proxy) = proxy_for(url, variable)?;
        let proxy = proxy.unwrap();
        Some(format!("{name} {}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn the_variables_are_those_of_curl() {
        let (http, https) = ("http://a.org/x", "https://a.org/x");
        let p = [
            ("http_proxy", "p:1"),
            ("https_proxy", "http://q:2"),
            ("ALL_PROXY", "r:3"),
        ];
        assert_eq!(of(http, &p).unwrap(), "http_proxy p:1");
        assert_eq!(of(https, &p).unwrap(), "https_proxy q:2");
        assert_eq!(of(https, &p[2..]).unwrap(), "ALL_PROXY r:3");
        assert_eq!(of(http, &[("HTTP_PROXY", "p:1")]), None);
        assert_eq!(of(https, &[("http_proxy", "p:1")]), None);
        assert_eq!(
            of(https, &[("HTTPS_PROXY", "p:1"), ("https_proxy", "")]).unwrap(),
            "HTTPS_PROXY p:1"
        );
        assert_eq!(
            of(https, &[("HTTPS_PROXY", "socks5://p:1080")]).unwrap(),
            "HTTPS_PROXY p:1080"
        );
        let ports = [
            "p",
            "http://p/",
            "http://u:w@p",
            "http://[fd::1]",
            "http://p:3",
        ]
        .map(|address| of(https, &[("https_proxy", address)]).unwrap());
        let expected = ["p:1080", "p:1080", "p:1080", "[fd::1]:1080", "p:3"];
        assert_eq!(
            ports,
            expected.map(|address| format!("https_proxy {address}"))
        );
        for own in [
            "http://127.0.0.1:80/",
            "http://localhost/",
            "http://[::1]:8080/x",
        ] {
            assert_eq!(of(own, &p), None, "{own}");
        }
    }

    #[test]
    fn hosts_without_a_proxy_are_those_of_curl() {
        let hosts = |list: &str, host: &str| {
            let url = format!("https://{host}:8443/file");
            of(&url, &[("https_proxy", "p:1"), ("NO_PROXY", list)]).is_none()
        };
        for (list, host) in [
            ("*", "a.org"),
            ("a.org", "a.org"),
            ("a.org", "A.ORG"),
            (".a.org", "data.a.org"),
            ("b.org, a.org", "data.a.org"),
            ("b.org a.org", "data.a.org"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
            ("fd00::/8", "[fd12::1]"),
            ("0.0.0.0/0", "9.9.9.9"),
        ] {
            assert!(hosts(list, host), "{list} {host}");
        }
        for (list, host) in [
            ("", "a.org"),
            ("a.org", "ba.org"),
            ("data.a.org", "a.org"),
            ("10.0.0.0/8", "11.1.2.3"),
            ("10.0.0.0/x", "10.1.2.3"),
            ("::/0", "10.1.2.3"),
            (".", "a.org"),
            ("b.org,*", "a.org"),
        ] {
            assert!(!hosts(list, host), "{list} {host}");
        }
    }
}
