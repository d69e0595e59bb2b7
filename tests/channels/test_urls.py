"""The guard against requests into our own network: addresses, and the many ways to write them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import urls
from channels.base import InvalidRecipient
from channels.urls import AddressRefused, is_public, refuse_private, webhook_url

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "2a00::1",
]
PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",  # a cloud's metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",  # Teredo
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2620:4f:8000::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
#: Hosts that some resolver takes for a private address.
DISGUISES = [
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "0",
    "017700000001",
    "127.0.0.1.",
    "127.0.0.01",
    "1.1.1.1.1",
    "foo.2130706433",
    "foo.0x7f",
    "\uff11\uff12\uff17.0.0.1",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[64:ff9b::a9fe:a9fe]",
    "[v1.fe80::a]",
    "a%2eb",
    "%31%32%37.0.0.1",
    "",
    ".",
]


@pytest.fixture(autouse=True)
def strict(loopback: None) -> None:
    """As in production: no private network is allowed."""
    urls.allow_private_networks([])


@pytest.mark.parametrize("address", PUBLIC)
def test_an_ordinary_address_may_be_written_to(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    refuse_private([address])


@pytest.mark.parametrize("address", PRIVATE)
def test_a_special_address_may_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(AddressRefused):
        refuse_private(["1.1.1.1", address])


def test_a_zone_does_not_hide_an_address() -> None:
    with pytest.raises(AddressRefused):
        refuse_private(["fe80::1%eth0"])


@pytest.mark.parametrize("address", PRIVATE)
def test_a_url_with_a_special_address_is_refused_at_the_door(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidRecipient):
        webhook_url(f"https://{host}/hook")


@pytest.mark.parametrize("host", DISGUISES)
def test_a_host_that_could_be_an_address_in_disguise_is_refused(host: str) -> None:
    with pytest.raises(InvalidRecipient):
        webhook_url(f"https://{host}/hook")


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/hook",
        "http://localhost/hook",
        "ftp://shop.example/",
        "file:///etc/passwd",
        "gopher://shop.example/",
        "//shop.example/hook",
        "shop.example/hook",
        "https:shop.example",
        "https:///hook",
        "https://user@shop.example/",
        "https://user:password@shop.example/",
        "https://shop.example@127.0.0.1/",
        "https://shop.example:0/",
        "https://shop.example:65536/",
        "https://shop.example:x/",
        "https://shop.example/#fragment",
        "https://shop.example/#",
        "https://shop.example/a b",
        "https://shop.example/\r\nHost: evil.example",
        "https://shop.example\\@127.0.0.1/",
        "https://shop.example/\x00",
        "https://[::1",
        "https://shop.example/" + "x" * 2048,
        "",
    ],
)
def test_what_is_no_plain_https_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidRecipient):
        webhook_url(url)


@pytest.mark.parametrize(
    ("url", "becomes"),
    [
        ("https://shop.example/hook?a=1&b=%20", "https://shop.example/hook?a=1&b=%20"),
        (" https://shop.example ", "https://shop.example"),
        ("HTTPS://Shop.Example:443/Hook", "https://shop.example/Hook"),
        ("https://shop.example.:8443/", "https://shop.example:8443/"),
        ("https://1.1.1.1/", "https://1.1.1.1/"),
        ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
    ],
)
def test_a_url_is_written_one_way(url: str, becomes: str) -> None:
    assert webhook_url(url) == becomes
    assert webhook_url(becomes) == becomes


def test_development_may_allow_its_own_network_and_plain_http_there() -> None:
    urls.allow_private_networks(["127.0.0.0/8", "10.1.0.0/16"])
    assert webhook_url("http://localhost:8000/hook") == "http://localhost:8000/hook"
    assert webhook_url("http://10.1.2.3/") == "http://10.1.2.3/"
    for url in ("http://10.2.0.1/", "http://shop.example/", "https://192.168.0.1/"):
        with pytest.raises(InvalidRecipient):
            webhook_url(url)
    refuse_private(["127.0.0.1"])
    with pytest.raises(AddressRefused):
        refuse_private(["127.0.0.1", "192.168.0.1"])


@given(
    st.text(max_size=40)
    | st.text(max_size=30).map("https://{}/".format)
    | st.from_regex(r"https://\[?[0-9a-fA-FxX.:%v]{1,20}\]?/")
)
@settings(max_examples=500, deadline=None)
def test_whatever_is_given_is_refused_in_words_or_becomes_a_url_that_passes_again(text: str) -> None:
    try:
        url = webhook_url(text)
    except InvalidRecipient:
        return
    assert url.startswith("https://")
    assert url.isascii()
    assert webhook_url(url) == url
