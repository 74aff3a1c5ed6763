//! The proxy for an address, from the variables that curl reads.
//!
//! | variable | for |
//! | - | - |
//! | `https_proxy`, `HTTPS_PROXY` | `https://` |
//! | `http_proxy` | `http://`; curl leaves `HTTP_PROXY` out, which a web server sets from a request's header |
//! | `all_proxy`, `ALL_PROXY` | both, if the variables before are not set |
//! | `no_proxy`, `NO_PROXY` | hosts without a proxy, separated by commas or blanks: a name and all names below it, an IP address, or a block such as `10.0.0.0/8`; or `*` alone for all |
//!
//! A proxy without a port has 1080. Unlike curl, an `http://` address too is reached by CONNECT, and an address that redirects keeps
//! the proxy of the first one.

use std::net::IpAddr;

use ureq::Proxy;
use ureq::http::Uri;

/// The proxy for `url`, with the name of its variable; none for hosts that need none and for this machine.
pub(super) fn proxy_for(
    url: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, Result<Proxy, ureq::Error>)> {
    // As the client reads the address, so that both mean the same host. It refuses one that this does not read.
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let set = |name: &'static str| {
        let value = variable(name)?;
        Some((name, value)).filter(|(_, value)| !value.trim().is_empty())
    };
    let bypassed = set("no_proxy").or_else(|| set("NO_PROXY"));
    let is_bypassed = bypassed.is_some_and(|(_, list)| is_listed(&list, &host));
    // A proxy cannot reach this machine's own addresses. (curl asks it all the same.)
    if is_bypassed || host == "localhost" || is_loopback(&host) {
        return None;
    }
    let names: &[&'static str] = match uri.scheme_str() {
        Some("https") => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
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

fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a value of `no_proxy` is about `host`. The asterisk stands alone or for itself.
fn is_listed(list: &str, host: &str) -> bool {
    let mut entries = list.split([',', ' ', '\t']);
    list.trim() == "*" || entries.any(|entry| matches(entry, host))
}

/// Whether an entry of `no_proxy` is about `host`, which has small letters and no dot at its end.
fn matches(entry: &str, host: &str) -> bool {
    let entry = entry.trim_end_matches('.');
    if let Ok(address) = host.parse::<IpAddr>() {
        let (block, length) = match entry.split_once('/') {
            Some((block, length)) => (block, length.parse().ok()),
            None => (entry, Some(if address.is_ipv4() { 32 } else { 128 })),
        };
        let block = block.trim_matches(['[', ']']).parse();
        return matches!((block, length), (Ok(block), Some(n)) if in_block(address, block, n));
    }
    let name = entry.trim_start_matches('.').to_ascii_lowercase();
    let before = host.strip_suffix(&name);
    !name.is_empty() && before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether the first `length` bits of both addresses agree. A block has no more bits than its address.
fn in_block(address: IpAddr, block: IpAddr, length: u32) -> bool {
    let (differ, bits) = match (address, block) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()) << 96, 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    length <= bits && (differ.leading_zeros() >= length || differ == 0)
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
            "http://127.8.9.1/",
            "http://localhost/",
            "http://LocalHost.:80/",
            "http://evil.com@localhost/",
            "http://[::1]:8080/x",
        ] {
            assert_eq!(of(own, &p), None, "{own}");
        }
    }

    #[test]
    fn a_host_that_looks_like_this_machine_or_a_trusted_one_is_neither() {
        let set = [
            ("http_proxy", "p:1"),
            ("no_proxy", "trusted.org,10.0.0.0/8"),
        ];
        for other in [
            "http://localhost.evil.com/",
            "http://127.0.0.1.evil.com/",
            "http://10.0.0.1.evil.com/",
            "http://trusted.org.evil.com/",
            "http://nottrusted.org/",
            "http://localhost@evil.com/",
            "http://localhost:80@evil.com/",
            "http://trusted.org:x@evil.com:8080/",
            "http://evil.com/localhost",
            "http://evil.com?@localhost/",
            "http://evil.com#@localhost/",
            "HTTP://evil.com/@trusted.org",
            "http://[2001:db8::1]/",
        ] {
            assert_eq!(of(other, &set).unwrap(), "http_proxy p:1", "{other}");
        }
        // The client refuses it as well: it asks neither host.
        let refused = "http://evil.com\\@localhost/";
        assert_eq!(of(refused, &set), None);
        assert!(refused.parse::<Uri>().is_err());
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
            ("b.org a.org", "a.org."),
            (" * ", "a.org"),
            ("10.1.2.3/32", "10.1.2.3"),
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
            ("10.1.2.3/33", "10.1.2.3"),
            ("b.org,*", "a.org"),
            ("*.org", "a.org"),
            ("::/0", "10.1.2.3"),
            (".", "a.org"),
        ] {
            assert!(!hosts(list, host), "{list} {host}");
        }
    }
}
