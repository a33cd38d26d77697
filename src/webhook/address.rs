//! Which addresses an endpoint may have. The check applies to the very addresses that are connected to, so resolving
//! the name again cannot bypass it ("DNS rebinding").

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Resolves names as the system does, and drops addresses that are not public unless they are permitted.
#[derive(Debug)]
pub struct Guard {
    /// Whether to permit addresses of private networks.
    pub allow_private: bool,
    /// The address to which all names resolve in a test.
    #[cfg(test)]
    pub resolve_to: Option<std::net::SocketAddr>,
}

/// The error of [`Guard`] for a name without a permitted address.
#[derive(Debug, thiserror::Error)]
#[error(
    "the endpoint's name resolves to no public address ({0}); set alerts.webhook.allow_private = true if it is meant \
     to be in a private network"
)]
pub struct Forbidden(String);

impl Resolver for Guard {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        #[cfg(test)]
        let found = match self.resolve_to {
            Some(address) => {
                let mut found = self.empty();
                found.push(address);
                found
            }
            None => DefaultResolver::default().resolve(uri, config, timeout)?,
        };
        #[cfg(not(test))]
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        if self.allow_private {
            return Ok(found);
        }
        let mut permitted = self.empty();
        for address in found.iter().filter(|address| is_public(address.ip())) {
            permitted.push(*address);
        }
        if permitted.is_empty() {
            let all: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
            return Err(ureq::Error::Io(io::Error::other(Forbidden(all.join(", ")))));
        }
        Ok(permitted)
    }
}

/// Whether an address belongs to the public Internet: it is not in one of the special-purpose ranges of the IANA
/// registries (RFC 6890 and its successors), and an IPv6 address does not embed such an IPv4 address.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let special = match ip.octets() {
        [0 | 10 | 127, ..] => true,  // this network, private, loopback
        [100, 64..=127, ..] => true, // shared with the provider (CGNAT, RFC 6598)
        [169, 254, ..] => true,      // link-local, where clouds keep their metadata
        [172, 16..=31, ..] => true,  // private
        [192, 0, 0 | 2, _] => true,  // protocols, documentation
        [192, 88, 99, _] => true,    // relays of 6to4
        [192, 168, ..] => true,      // private
        [198, 18 | 19, ..] => true,  // benchmarks
        [198, 51, 100, _] => true,   // documentation
        [203, 0, 113, _] => true,    // documentation
        [224..=255, ..] => true,     // multicast, reserved, broadcast
        _ => false,
    };
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low), // mapped
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low), // NAT64
        [0x2002, high, low, ..] => embedded(high, low),            // 6to4
        [0x2001, 0xdb8, ..] => false,                              // documentation
        [0x2001, second, ..] if second < 0x200 => false,           // protocols, Teredo among them
        [0x3fff, second, ..] if second < 0x1000 => false,          // documentation
        // Only this eighth is allocated as global unicast; loopback, local and multicast addresses are outside of it.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        let public = [
            "1.1.1.1",
            "172.15.255.255",
            "172.32.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "169.253.0.1",
            "223.255.255.255",
        ];
        let public6 = ["2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1", "2001:4860::8888"];
        for ip in public.into_iter().chain(public6) {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        let special = [
            "0.0.0.0",
            "10.0.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ];
        let special6 = [
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "100::1",
            "5f00::1",
        ];
        for ip in special.into_iter().chain(special6) {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }
}
