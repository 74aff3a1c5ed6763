//! The transfer itself: a file from one of its addresses, resumed where it broke off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ureq::http::{HeaderMap, header};
use ureq::tls::{RootCerts, TlsConfig};

use super::proxy::proxy_for;
use super::{Bar, OnMismatch, Options, length, part_of, remove, urls, verify};
use crate::registry::Entry;
use crate::{Causes, DataError, Result};

/// Tries every address; returns the checked archive under its final name.
pub(super) fn download(entry: &Entry, options: &Options, bar: &Bar) -> Result<PathBuf> {
    let archive = options.dir.join(&entry.archive);
    let part = part_of(&archive);
    let mut causes = Vec::new();
    for url in urls(entry, options) {
        bar.stage(&format!("asking {url}"), 0, 0);
        match download_from(url, entry, options, &part, bar) {
            Ok(()) => {
                fs::rename(&part, &archive).map_err(DataError::io("create", &archive))?;
                return Ok(archive);
            }
            // The disk, not the source, is at fault: no mirror mends that.
            Err(error @ (DataError::Io { .. } | DataError::WrongKind { .. })) => return Err(error),
            Err(error) => causes.push(error),
        }
    }
    Err(DataError::NoSource {
        file: entry.archive.clone(),
        causes: Causes(causes),
        by_hand: entry.by_hand(&options.dir),
    })
}

/// Brings the whole file to `part` from one address, in as many attempts as it takes, and checks it.
fn download_from(
    url: &str,
    entry: &Entry,
    options: &Options,
    part: &Path,
    bar: &Bar,
) -> Result<()> {
    /// An attempt that brings so many bytes shows that the connection works.
    const PROGRESS: u64 = 1 << 20;

    let mut agent = agent(url, options, RootCerts::PlatformVerifier)?;
    let mut has_own_roots = false;
    let mut failures = 0;
    loop {
        if length(part) > entry.bytes {
            remove(part)?;
        }
        let before = length(part);
        let result = transfer(&agent, url, entry, part, bar)
            .and_then(|()| verify(part, entry, bar, OnMismatch::Delete));
        let error = match result {
            Ok(()) => return Ok(()),
            // The first bytes may be another mirror's or an older file's: try once from zero.
            Err(DataError::HashMismatch { .. }) if before > 0 => continue,
            // A small container has no certificates.
            Err(error) if !has_own_roots && has_no_roots(&error) => {
                agent = self::agent(url, options, RootCerts::WebPki)?;
                has_own_roots = true;
                continue;
            }
            Err(error) => error,
        };
        if length(part) >= before.saturating_add(PROGRESS) {
            failures = 0;
        }
        if failures >= options.retries || !worth_another_try(&error) {
            return Err(error);
        }
        let pause = options
            .backoff
            .saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX));
        thread::sleep(pause.min(Duration::from_secs(60)));
        failures += 1;
    }
}

fn worth_another_try(error: &DataError) -> bool {
    match error {
        // A name that is not known now is not known a few seconds later, and a proxy that refuses does so
        // again: on to the next address.
        DataError::Network { source, .. } => {
            !source
                .downcast_ref::<ureq::Error>()
                .is_some_and(|e| match e {
                    ureq::Error::HostNotFound
                    | ureq::Error::BadUri(_)
                    | ureq::Error::ConnectProxyFailed(_) => true,
                    // The resolver's own words for it; the standard library gives them no kind. Invalid
                    // data are a certificate that is not trusted.
                    ureq::Error::Io(e) => {
                        e.kind() == io::ErrorKind::InvalidData
                            || e.to_string().contains("lookup address")
                    }
                    _ => false,
                })
        }
        DataError::Cut { .. } => true,
        DataError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
        _ => false,
    }
}

/// Whether the system's store of certificates is empty. rustls has only words for it.
fn has_no_roots(error: &DataError) -> bool {
    matches!(error, DataError::Network { source, .. } if source.to_string().contains("No CA certificates"))
}

fn agent(url: &str, options: &Options, roots: RootCerts) -> Result<ureq::Agent> {
    let proxy = match proxy_for(url, |name| std::env::var(name).ok()) {
        None => None,
        Some((_, Ok(proxy))) => Some(proxy),
        Some((name, Err(error))) => {
            return Err(DataError::Network {
                url: url.to_owned(),
                source: format!("the proxy in {name}: {error}").into(),
            });
        }
    };
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_connect(Some(options.connect_timeout))
        .timeout_per_read(Some(options.read_timeout))
        .timeout_per_write(Some(options.read_timeout))
        .accept_encoding("identity")
        .user_agent(concat!("rezero-data/", env!("CARGO_PKG_VERSION")))
        // The system's certificates, which a company may have added to, or those of SSL_CERT_FILE.
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .proxy(proxy);
    Ok(config.build().into())
}

/// One request: appends to `part` what is missing of the file.
fn transfer(agent: &ureq::Agent, url: &str, entry: &Entry, part: &Path, bar: &Bar) -> Result<()> {
    let mut from = length(part);
    if from == entry.bytes {
        return Ok(());
    }
    let mut response = request(agent, url, from)?;
    if response.status() == 416 && from > 0 {
        remove(part)?;
        from = 0;
        response = request(agent, url, 0)?;
    }
    let status = response.status().as_u16();
    match status {
        // Without a range in its answer, or with another one, the server starts over.
        206 if from > 0 && range_start(response.headers()) == Some(from) => {}
        200 => from = 0,
        206 => {
            remove(part)?;
            return Err(cut(url, 0, entry, None));
        }
        _ => {
            return Err(DataError::Status {
                url: url.to_owned(),
                status,
            });
        }
    }
    if is_html(response.headers()) {
        return Err(DataError::HtmlPage {
            url: url.to_owned(),
        });
    }
    let length = response.body().content_length();
    let mut body = response.into_body().into_reader();
    // The first bytes tell a web page, also one without its Content-Type.
    let mut head = Vec::new();
    let broken = body.by_ref().take(HEAD).read_to_end(&mut head).err();
    if from == 0 && looks_like_html(&head) {
        return Err(DataError::HtmlPage {
            url: url.to_owned(),
        });
    }
    if let Some(rest) = length
        && from.saturating_add(rest) != entry.bytes
    {
        let (expected, got) = (entry.bytes, from.saturating_add(rest));
        return Err(DataError::WrongSize {
            url: url.to_owned(),
            expected,
            got,
        });
    }
    // Only now is the response known to be better than what `part` holds.
    let mut file = OpenOptions::new()
        .create(true)
        .append(from > 0)
        .write(true)
        .truncate(from == 0)
        .open(part)
        .map_err(DataError::io("create", part))?;
    bar.stage(&format!("downloading {}", entry.archive), entry.bytes, from);
    let mut body = head.as_slice().chain(Broken(broken)).chain(body);
    let written = receive(&mut body, &mut file, url, entry, part, from, bar);
    if let Err(DataError::TooLarge { .. }) = written {
        drop(file);
        remove(part)?;
        return written;
    }
    // What arrived is to outlive a power cut, but an error in writing it comes first.
    written.and(file.sync_all().map_err(DataError::io("write", part)))
}

/// A reader that is empty, or fails once with the error it holds.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

fn request(agent: &ureq::Agent, url: &str, from: u64) -> Result<ureq::http::Response<ureq::Body>> {
    let mut request = agent.get(url);
    if from > 0 {
        request = request.header(header::RANGE, format!("bytes={from}-"));
    }
    request.call().map_err(|e| DataError::Network {
        url: url.to_owned(),
        source: Box::new(e),
    })
}

/// Copies the body to `file`, whose length is `from`, up to the registered length.
fn receive(
    body: &mut impl Read,
    file: &mut File,
    url: &str,
    entry: &Entry,
    part: &Path,
    from: u64,
    bar: &Bar,
) -> Result<()> {
    let mut chunk = vec![0; 1 << 16];
    let mut at = from;
    loop {
        let n = match body.read(&mut chunk) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(cut(url, at, entry, Some(e))),
        };
        if n == 0 {
            return if at == entry.bytes {
                Ok(())
            } else {
                Err(cut(url, at, entry, None))
            };
        }
        if at + n as u64 > entry.bytes {
            return Err(DataError::TooLarge {
                url: url.to_owned(),
                cap: entry.bytes,
            });
        }
        file.write_all(&chunk[..n])
            .map_err(DataError::io("write", part))?;
        at += n as u64;
        bar.advance(n as u64);
    }
}

fn cut(url: &str, got: u64, entry: &Entry, source: Option<io::Error>) -> DataError {
    DataError::Cut {
        url: url.to_owned(),
        got,
        expected: entry.bytes,
        source,
    }
}

/// The first byte that a `Content-Range: bytes FIRST-LAST/LENGTH` announces.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range
        .trim()
        .strip_prefix("bytes")?
        .trim()
        .split('-')
        .next()?
        .parse()
        .ok()
}

fn is_html(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| {
            let kind = v.trim().to_ascii_lowercase();
            kind.starts_with("text/html") || kind.starts_with("application/xhtml")
        })
}

/// Bytes that [`looks_like_html`] needs at most, blanks before the page included.
const HEAD: u64 = 512;

fn looks_like_html(head: &[u8]) -> bool {
    let text = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    [&b"<!doctype html"[..], b"<html"].iter().any(|tag| {
        text.get(..tag.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(tag))
    })
}
