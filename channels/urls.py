"""Which URLs and addresses a message may go to: the guard against requests into our own network.

Called by intake (``webhook_url``), by the HTTP client (``refuse_private``, at every connection) and once at
start by the settings (``allow_private_networks``). The tables are our own: on Python 3.11
``ipaddress.is_global`` says True for ``::127.0.0.1``, ``64:ff9b::a9fe:a9fe``, ``2002:7f00:1::``, ``fec0::1``,
``224.0.0.1`` and ``168.63.129.16``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from yarl import URL

from channels.base import InvalidRecipient

URL_LIMIT = 2048

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: IANA's special-purpose registry (RFC 6890 and its updates), multicast, and the address of Azure's own
#: services.
_DENIED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers, RFC 6598; a metadata service lives here too
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's platform services
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
#: Only global unicast is considered at all, which leaves out mapped, compatible, NAT64, unique local,
#: site-local, link-local and multicast addresses.
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
_DENIED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo, ORCHID and the other protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4 wraps any IPv4 address
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)

_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x20\x7f\\]")
#: A host whose last label is a number is an IPv4 address to some resolvers: 2130706433, 0x7f000001, 127.1,
#: 0177.0.0.1.
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\Z")

_allowed: tuple[Network, ...] = ()


class AddressRefused(OSError):
    """A host whose address a message must not go to; an ``OSError``, as other failures to connect are."""


def allow_private_networks(networks: Iterable[str]) -> None:
    """Let messages reach these networks (``127.0.0.0/8``), for this process, replacing what was allowed
    before.

    For development and tests; production allows none. Plain http is accepted to these networks only.
    """
    global _allowed
    _allowed = tuple(ip_network(network) for network in networks)


def is_public(address: Address) -> bool:
    """Whether ``address`` is an ordinary address of the public Internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _DENIED_V4)
    return address in _GLOBAL_UNICAST_V6 and not any(address in network for network in _DENIED_V6)


def is_allowed_privately(address: Address) -> bool:
    """Whether ``address`` lies in a network given to ``allow_private_networks``."""
    return any(address in network for network in _allowed)


def refuse_private(addresses: Iterable[str]) -> None:
    """Raise ``AddressRefused`` unless all ``addresses`` are public or allowed. The text names no address."""
    for text in addresses:
        address = ip_address(text.partition("%")[0])
        if not (is_public(address) or is_allowed_privately(address)):
            raise AddressRefused("the host has an address that is not on the public Internet")


def webhook_url(to: str) -> str:
    """``to`` as the URL that is requested: https, a host, no credentials, no fragment; nothing is looked up.

    Plain http passes only where the host is ``localhost`` or an address inside an allowed private network.
    Raises ``InvalidRecipient``.
    """
    url = _parsed(to.strip())
    host = _host(url)
    if url.scheme == "http" and not _may_be_plain(host):
        raise InvalidRecipient("must begin with https://")
    if _literal(host) is None and _ENDS_IN_NUMBER.search(host):
        raise InvalidRecipient("has a host that is neither a name nor an address in its usual form")
    try:
        return str(url.with_host(host).with_port(None if url.is_default_port() else url.port))
    except ValueError as error:
        raise InvalidRecipient("has a host with characters that no host has") from error


def _parsed(text: str) -> URL:
    if len(text) > URL_LIMIT or _FORBIDDEN_CHARACTERS.search(text):
        raise InvalidRecipient(f"must be a URL of at most {URL_LIMIT} characters without spaces or backslashes")
    try:
        url = URL(text)
    except ValueError as error:
        raise InvalidRecipient(f"is not a URL: {error}") from error
    if url.scheme not in ("http", "https"):
        raise InvalidRecipient("must be a URL that begins with https://")
    if "@" in url.raw_authority or url.user is not None or url.password is not None:
        raise InvalidRecipient("must not hold a user name or password; sign requests with the account's secret")
    if "#" in text:
        raise InvalidRecipient("must not hold a fragment (#...): it would not be sent")
    return url


def _host(url: URL) -> str:
    """In its ASCII form: the other is made by decoding, which fails for some names that begin with xn--."""
    host = (url.raw_host or "").rstrip(".")
    if not host or "%" in host or url.port == 0:
        raise InvalidRecipient("must name a host and, where there is one, a port from 1 to 65535")
    address = _literal(host)
    if address is None and ":" in host:
        raise InvalidRecipient("has a host in brackets that is no IPv6 address")
    if address is not None and not (is_public(address) or is_allowed_privately(address)):
        raise InvalidRecipient("must not point to a private or reserved address")
    return host


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _may_be_plain(host: str) -> bool:
    address = ip_address("127.0.0.1") if host == "localhost" else _literal(host)
    return address is not None and is_allowed_privately(address)
