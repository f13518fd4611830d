use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses a target may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressPolicy {
    /// All: for targets that an operator wrote into a file.
    Any,
    /// Public ones and those of this machine: for targets that came over the API of a gateway that serves one developer.
    PublicOrLoopback,
    /// Public ones only: for targets that came over the API, so that nobody makes the gateway call what only it can reach.
    PublicOnly,
}

impl AddressPolicy {
    /// Whether a target may have this address.
    pub fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::PublicOrLoopback => is_public(address) || address.to_canonical().is_loopback(),
            Self::PublicOnly => is_public(address),
        }
    }

    /// Whether a target may name this host as it is written, as far as that can be told before its name is resolved: an
    /// address, or a name that stands for this machine. Whatever passes is judged again by the address that is called.
    pub fn allows_host(self, host: &str) -> bool {
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return self.allows(address);
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let is_local = name == "localhost" || name.ends_with(".localhost");
        !is_local || self.allows(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// Networks that are not the public internet (IANA special-purpose registries), as (network, prefix length).
const NOT_PUBLIC_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, reserved and broadcast.
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

const NOT_PUBLIC_V6: &[(Ipv6Addr, u32)] = &[
    // Unspecified, loopback, IPv4-compatible and IPv4-mapped.
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 64),
    // NAT64, also for local use: an IPv4 address in disguise.
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64),
    // Teredo, ORCHID and other protocol assignments.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    // 6to4: an IPv4 address in disguise.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    // Link-local, and site-local, which old networks still use.
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 9),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// Whether an address belongs to the public internet. An IPv6 address that holds an IPv4 address is judged as not public,
/// but for the mapped form, which is judged by what it holds.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            !NOT_PUBLIC_V4.iter().any(|(network, length)| (address.to_bits() ^ network.to_bits()) >> (32 - length) == 0)
        }
        IpAddr::V6(address) => !NOT_PUBLIC_V6
            .iter()
            .any(|(network, length)| (address.to_bits() ^ network.to_bits()) >> (128 - length) == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_judged_as_far_as_they_tell() {
        for (host, public, loopback) in [
            ("example.com", true, true),
            ("8.8.8.8", true, true),
            ("127.0.0.1", false, true),
            ("[::1]", false, true),
            ("LocalHost.", false, true),
            ("a.localhost", false, true),
            ("10.0.0.1", false, false),
            ("[fd00::1]", false, false),
            ("[::ffff:169.254.169.254]", false, false),
        ] {
            assert_eq!(AddressPolicy::PublicOnly.allows_host(host), public, "{host}");
            assert_eq!(AddressPolicy::PublicOrLoopback.allows_host(host), loopback, "{host}");
            assert!(AddressPolicy::Any.allows_host(host), "{host}");
        }
    }

    #[test]
    fn only_the_public_internet_is_public() {
        let check = |expected: bool, addresses: &[&str]| {
            for address in addresses {
                assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
            }
        };
        check(
            true,
            &[
                "1.1.1.1",
                "8.8.8.8",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "169.253.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.0",
                "192.167.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "223.255.255.255",
                "2606:4700::1111",
                "2001:4860:4860::8888",
                "2a00::1",
                "::ffff:8.8.8.8",
            ],
        );
        check(
            false,
            &[
                "0.0.0.0",
                "0.1.2.3",
                "10.0.0.1",
                "10.255.255.255",
                "100.64.0.1",
                "100.127.255.255",
                "127.0.0.1",
                "127.255.255.255",
                "169.254.169.254",
                "172.16.0.1",
                "172.31.255.255",
                "192.0.0.1",
                "192.0.2.1",
                "192.168.1.1",
                "198.18.0.1",
                "198.19.255.255",
                "224.0.0.1",
                "240.0.0.1",
                "255.255.255.255",
                "::",
                "::1",
                "::127.0.0.1",
                "::ffff:127.0.0.1",
                "::ffff:10.0.0.1",
                "64:ff9b::7f00:1",
                "64:ff9b:1::1",
                "2001::1",
                "2001:db8::1",
                "2002:7f00:1::",
                "fc00::1",
                "fd12::1",
                "fe80::1",
                "fec0::1",
                "ff02::1",
            ],
        );
    }
}
