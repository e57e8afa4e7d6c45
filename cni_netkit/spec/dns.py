"""Name servers: as configurations have them, and as runtimes pass them."""

from cni_netkit.spec.model import Foreign


class DNS(Foreign):
    """Specification section 2, "dns"; overrides what IPAM says."""

    nameservers: tuple[str, ...] = ()
    """Addresses of name servers, in order."""

    domain: str = ""
    """The domain for short names."""

    search: tuple[str, ...] = ()
    """Domains to look short names up in, in order; more than `domain` can say."""

    options: tuple[str, ...] = ()
    """Options of resolv.conf(5)."""


class CapabilityDNS(Foreign):
    """The dns capability: other names than in the configuration (CNI conventions document)."""

    servers: tuple[str, ...] = ()
    """As `dns.nameservers`, before it."""

    searches: tuple[str, ...] = ()
    """As `dns.search`, before it."""

    options: tuple[str, ...] = ()
    """As `dns.options`, before it."""
