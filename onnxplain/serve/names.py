"""The names by which clients call a service, and the address behind them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from onnxplain.errors import InputError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_NOT_IN_NAMES = frozenset("/\\?#@* ")


def resolved(host: str, port: int = 0) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """The address to listen on that is called so.

    Raises:
        InputError: there is none.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host}: {cause}") from error
    return family, address


def name_in(host: str) -> str | None:
    """The name in a Host header, in the one spelling in which names are compared; None without one.

    It is the one that browsers send: in lower case and ASCII ("xn--…"), an address in its short
    form, neither with a port nor with a final dot.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".").encode("idna").decode()
    except ValueError:
        return None
    with suppress(ValueError):
        return str(ip_address(name))
    return name or None


def hosts_of(address: str, token: str | None, named: Iterable[str]) -> frozenset[str] | None:
    """The names of a service: those given; and of one for this machine alone, this machine's.

    Any where none is given and other machines may ask, or a token is asked for.

    Raises:
        InputError: what is given is no name, or there is no such address.
    """
    given = frozenset(map(_given, named))
    if not given and token is not None:
        return None
    _, (number, *_) = resolved(address)
    if not given and not ip_address(number).is_loopback:
        return None
    return given | LOOPBACK | {name_in(_as_in_a_header(address)) or number, number}


def _given(text: str) -> str:
    name = None if _NOT_IN_NAMES & set(text) else name_in(_as_in_a_header(text))
    if name is None:
        raise InputError(f"allow_host= takes a name such as example.org, not {text!r}")
    return name


def _as_in_a_header(address: str) -> str:
    """An IPv6 address has brackets there."""
    bare = address.count(":") > 1 and not address.startswith("[")
    return f"[{address}]" if bare else address
