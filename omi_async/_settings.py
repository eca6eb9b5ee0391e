"""What a Session is told, by its arguments and by the environment: read, checked, and kept secret."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from omi_async.constants import BASE_URL
from omi_async.errors import ConfigurationError

__all__ = [
    "Secret",
    "flag",
    "parse_api_key",
    "parse_base_url",
    "parse_seconds",
    "parse_share",
    "parse_timeout",
    "proxy_for",
    "proxy_name",
    "within_pool",
]

CONNECT_TIMEOUT: Final = 10.0


class Secret(str):
    """A string that keeps itself out of every repr: of tracebacks' locals, of headers, of attributes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def flag(name: str) -> bool:
    """Whether an environment variable says yes."""
    return os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}


def parse_api_key(given: Secret | None, kind: type = str) -> Secret:
    """Return the key that is given, or the environment's. Raises `ConfigurationError`.

    `kind` is what it was before it became a `Secret`, which anything can: bytes too may hold a key.
    """
    key = Secret((os.environ.get("OMI_API_KEY", "") if given is None else given).strip())
    if not key:
        raise ConfigurationError("no API key: set OMI_API_KEY, or give Session(api_key=...)")
    if given is not None and not issubclass(kind, str):
        raise ConfigurationError(f"the API key must be a string, not {kind.__name__}")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigurationError("the API key holds a character that no key has; was it pasted whole?")
    return key


def parse_timeout(name: str, seconds: float) -> aiohttp.ClientTimeout:
    """Return a timeout for one attempt. Raises `ConfigurationError`."""
    if not 0 < seconds < float("inf"):
        raise ConfigurationError(f"{name} must be a positive number of seconds, not {seconds!r}")
    return aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_TIMEOUT))


def parse_seconds(name: str, seconds: float) -> float:
    """Return a number of seconds, at least 0; infinity is one."""
    if not seconds >= 0:
        raise ConfigurationError(f"{name} must be a number of seconds, at least 0, not {seconds!r}")
    return seconds


def parse_share(name: str, share: float) -> float:
    """Return a share of a whole that leaves some of it."""
    if not 0 <= share < 1:
        raise ConfigurationError(f"{name} must be a share from 0 to below 1, not {share!r}")
    return share


def within_pool(connections: int, client: aiohttp.ClientSession | None) -> int:
    """Return how many calls may be on the wire: never more than the pool of a `client` lets."""
    connector = None if client is None else client.connector
    limits = () if connector is None else (connector.limit, connector.limit_per_host)
    return min([connections, *(limit for limit in limits if limit)])


def parse_base_url(given: str | URL | None, allow_http: bool, key: str) -> str:
    """Return the base URL without a slash at its end. Raises `ConfigurationError`."""
    text = str(given if given is not None else os.environ.get("OMI_API_BASE") or BASE_URL).strip()
    # A base URL stands in errors, logs, journals and reprs, and so no key may stand in it.
    if any(_holds_a_key(spelling, key) for spelling in (text, unquote(text))):
        raise ConfigurationError("the base URL must not hold an API key")
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or url.scheme not in {"http", "https"} or not _is_host(host):
        raise ConfigurationError(f"the base URL must look like {BASE_URL}, not {_harmless(text)}")
    if url.user is not None or url.password is not None:
        raise ConfigurationError("the base URL must not hold a user or a password")
    if url.query_string or url.fragment or text.endswith(("?", "#")):
        raise ConfigurationError("the base URL must not hold a query or a fragment")
    if host.endswith("."):
        # The same server, whose journals and quotas are to be found under one name.
        host = host.rstrip(".")
        url = url.with_host(host)
    if url.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ConfigurationError(
            f"the key would cross the network in clear: {host} is not this machine and the base URL is "
            f"http://. Use https://, or allow it with allow_http=True or OMI_ALLOW_HTTP=1"
        )
    return str(url).rstrip("/")


_LIKE_A_KEY: Final = re.compile(r"omi_(dev|mcp)_[0-9a-z]{8}", re.IGNORECASE)


def _holds_a_key(text: str, key: str) -> bool:
    # A key for trying things out may be a word that stands in any URL.
    return (len(key) >= 8 and key in text) or _LIKE_A_KEY.search(text) is not None  # noqa: PLR2004  # as above


def _is_host(host: str) -> bool:
    # Only an IPv6 address may hold a percent sign, before its zone. In a name it would be the beginning of an
    # escape, which some read as an end of the name: 127.0.0.1%00.evil.example.
    return bool(host.strip(".")) and ("%" not in host or ":" in host)


def proxy_for(base_url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for a server, or None."""
    url = URL(base_url)
    host = url.host or ""
    # A proxy elsewhere cannot reach this machine, and would be sent the key in clear.
    if _is_loopback(host) or proxy_bypass(f"{host}:{url.port}"):
        return None
    proxy = getproxies().get(url.scheme)
    if not proxy:
        return None
    if URL(proxy).scheme not in {"http", "https"} or not URL(proxy).host:
        raise ConfigurationError(f"the proxy {proxy_name(proxy)} must be an http:// or https:// URL")
    return proxy


def proxy_name(proxy: str) -> str:
    """Name a proxy in a message, without the password that its URL may hold."""
    return _harmless(proxy)


def _harmless(text: str) -> str:
    """Shorten a base URL for a message, without a password, a token or the key that may be in its place."""
    scheme, colon, rest = text.partition("://")
    host = re.split(r"[/?#]", rest.rpartition("@")[2])[0][:100]
    return f"{scheme}://{host}" if colon and host.isprintable() else "what was given"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
