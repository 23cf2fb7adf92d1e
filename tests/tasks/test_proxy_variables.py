"""Proxies in the environment that Prefect's client does not understand stop no command, or are named."""

import os
from collections.abc import Iterator

import httpx
import pytest

from pcam_model.core.errors import ConfigError
from tasks.proxies import make_proxies_readable

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("exempted", "readable"),
    [
        ("localhost, 10.0.0.0/8,.example.com,*.inner", "localhost,10.0.0.0/8,.example.com,*.inner"),
        ("localhost,[::1],::1,fd00::/8,[::1]:4200", "localhost,::1,::1"),
        ("http://inner.example,*", "http://inner.example,*"),
        ("", ""),
    ],
)
def test_exempted_addresses_are_written_so_that_the_client_starts(exempted: str, readable: str) -> None:
    os.environ |= {"HTTP_PROXY": "127.0.0.1:9", "NO_PROXY": exempted}
    make_proxies_readable()
    assert os.environ["NO_PROXY"] == readable
    httpx.Client(verify=False).close()


def test_a_socks_proxy_beside_others_is_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    os.environ |= {"all_proxy": "socks5://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    make_proxies_readable()
    assert "ALL_PROXY is a SOCKS proxy, which is left out here" in caplog.text
    assert "all_proxy" not in os.environ
    assert os.environ["HTTP_PROXY"] == "http://127.0.0.1:9"
    httpx.Client(verify=False).close()


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("socks5h://127.0.0.1:9", "is a SOCKS proxy, expected an HTTP proxy"),
        ("http://user:secret@proxy:port", "is no address of a proxy"),
        ("htp://proxy", "is no address of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(address: str, found: str) -> None:
    os.environ["HTTPS_PROXY"] = address
    with pytest.raises(ConfigError, match=f"HTTPS_PROXY {found}") as caught:
        make_proxies_readable()
    assert "secret" not in str(caught.value)
    assert "correct or unset it" in str(caught.value)
