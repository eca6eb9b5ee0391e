"""Every error of aiohttp's becomes our own, of the right kind, and carries nothing of aiohttp's along."""

from __future__ import annotations

import asyncio
import errno
import inspect
import socket
import ssl
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions as theirs
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from omi_async._api.endpoints import list_memories
from omi_async._transport import abandon, translate
from omi_async.errors import ConfigurationError, ConnectError, OmiError, ResponseLostError

KEY = "omi_dev_0123456789abcdef"
BASE = "https://api.example"
REQUEST = list_memories()

HEADERS = CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {KEY}"}))
INFO = RequestInfo(URL(BASE), "GET", HEADERS, URL(BASE))
CONNECTION: Any = ConnectionKey("api.example", 443, True, True, None, None, None)
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
CERTIFICATE = ssl.SSLCertVerificationError(1, "certificate verify failed")

ERRORS_OF: dict[type[OmiError], list[BaseException]] = {
    ConnectError: [
        theirs.ClientConnectorError(CONNECTION, REFUSED),
        theirs.ClientConnectorDNSError(CONNECTION, socket.gaierror(-2, "Name or service not known")),
        theirs.ClientProxyConnectionError(CONNECTION, REFUSED),
        theirs.UnixClientConnectorError("/x", CONNECTION, REFUSED),
        theirs.ClientSSLError(CONNECTION, ssl.SSLError(1, "wrong version number")),
        theirs.ClientConnectorSSLError(CONNECTION, ssl.SSLError(1, "wrong version number")),
        theirs.ClientConnectorCertificateError(CONNECTION, CERTIFICATE),
        theirs.ClientHttpProxyError(INFO, (), status=407, message=KEY, headers=HEADERS),
        theirs.ConnectionTimeoutError("Connection timeout to host"),
        theirs.ServerFingerprintMismatch(b"a" * 32, b"b" * 32, "api.example", 443),
    ],
    ResponseLostError: [
        theirs.ClientError(KEY),
        theirs.ClientResponseError(INFO, (), status=400, message=KEY, headers=HEADERS),
        theirs.ContentTypeError(INFO, (), message=KEY, headers=HEADERS),
        theirs.WSServerHandshakeError(INFO, (), message=KEY, headers=HEADERS),
        theirs.TooManyRedirects(INFO, (), message=KEY, headers=HEADERS),
        theirs.RedirectClientError(KEY),
        theirs.ClientConnectionError("Connection closed"),
        theirs.ClientConnectionResetError("Cannot write to closing transport"),
        theirs.ClientOSError(errno.EPIPE, "Broken pipe"),
        theirs.ServerConnectionError(KEY),
        theirs.ServerDisconnectedError(KEY),
        theirs.ServerTimeoutError(KEY),
        theirs.SocketTimeoutError("Timeout on reading data from socket"),
        theirs.ClientPayloadError("Response payload is not completed"),
    ],
    ConfigurationError: [
        theirs.InvalidURL(BASE),
        theirs.InvalidUrlClientError(BASE),
        theirs.InvalidUrlRedirectClientError(BASE),
        theirs.NonHttpUrlClientError(BASE),
        theirs.NonHttpUrlRedirectClientError(BASE),
    ],
}
MADE = {type(error): (error, kind) for kind, errors in ERRORS_OF.items() for error in errors}
if hasattr(theirs, "UploadAbortedError"):  # newer than the oldest aiohttp that will do
    MADE[theirs.UploadAbortedError] = (theirs.UploadAbortedError(), ResponseLostError)


OF_WEBSOCKETS = {
    "WSMessageTypeError"
}  # a TypeError, for whoever asks a websocket for another kind of message


def public_errors() -> list[type[BaseException]]:
    return [
        thing
        for name, thing in vars(theirs).items()
        if not name.startswith("_")
        and name not in OF_WEBSOCKETS
        and inspect.isclass(thing)
        and issubclass(thing, BaseException)
        and thing.__module__ == theirs.__name__
    ]


def test_every_error_class_of_aiohttp_was_thought_of() -> None:
    assert set(public_errors()) == MADE.keys()


@pytest.mark.parametrize("kind", public_errors(), ids=lambda kind: kind.__name__)
def test_every_error_of_aiohttp_is_one_of_ours(kind: type[BaseException]) -> None:
    error, expected = MADE[kind]
    assert isinstance(error, Exception)
    ours = translate(error, REQUEST, BASE)
    assert type(ours) is expected
    assert str(ours).startswith(f"cannot list memories at {BASE}: ")
    assert KEY not in repr((ours, vars(ours), ours.args, ours.__cause__, ours.__context__))
    assert ours.__cause__ is None or isinstance(ours.__cause__, OSError)
    assert not isinstance(ours.__cause__, aiohttp.ClientError)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (TimeoutError(), ResponseLostError, "no answer in time"),
        (
            ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
            ResponseLostError,
            "reset by peer",
        ),
        (OSError(), ResponseLostError, "OSError"),
        (ssl.SSLError(1, "bad record mac"), ResponseLostError, "bad record mac"),
        (asyncio.IncompleteReadError(b"secret", 10), ResponseLostError, "IncompleteReadError"),
        (UnicodeError("label too long"), ConfigurationError, "no URL that can be called"),
        (RuntimeError("Session is closed"), ConfigurationError, "given as client is closed"),
        (
            ValueError("Cannot combine AUTHORIZATION header with AUTH argument"),
            ConfigurationError,
            "auth of its own",
        ),
        (MADE[theirs.ClientConnectorError][0], ConnectError, "not reached (Connection refused)"),
        (MADE[theirs.ClientConnectorDNSError][0], ConnectError, "no address for the host api.example"),
        (MADE[theirs.ClientConnectorCertificateError][0], ConnectError, "its certificate is not valid"),
        (
            theirs.ClientConnectorCertificateError(CONNECTION, ssl.CertificateError("x")),
            ConnectError,
            "its certificate is not valid",
        ),
        (
            theirs.ClientConnectorCertificateError(CONNECTION, ValueError("x")),
            ConnectError,
            "its certificate is not valid: ValueError",
        ),
        (MADE[theirs.ConnectionTimeoutError][0], ConnectError, "connecting took too long"),
        (theirs.ClientConnectorError(CONNECTION, OSError("no errno")), ConnectError, "no errno"),
        (MADE[theirs.ServerDisconnectedError][0], ResponseLostError, "the server closed the connection"),
        (MADE[theirs.ClientPayloadError][0], ResponseLostError, "the body was cut short"),
        (MADE[theirs.ClientResponseError][0], ResponseLostError, "what came back is no HTTP"),
        (MADE[theirs.ClientError][0], ResponseLostError, "(ClientError)"),
    ],
    ids=lambda cell: repr(cell)[:50],
)
def test_the_words_say_what_happened(error: Exception, kind: type[OmiError], words: str) -> None:
    ours = translate(error, REQUEST, BASE)
    assert type(ours) is kind
    assert words in str(ours)
    assert "secret" not in str(ours)


def test_the_cause_is_the_operating_system_s_and_has_no_frames_of_aiohttp() -> None:
    try:
        try:
            raise REFUSED
        except OSError as refused:
            raise theirs.ClientConnectorError(CONNECTION, refused) from refused
    except theirs.ClientConnectorError as error:
        ours = translate(error, REQUEST, BASE)
    assert ours.__cause__ is REFUSED
    assert ours.__cause__.__traceback__ is None


def test_an_error_of_ours_stays_itself() -> None:
    ours = ConfigurationError("m")
    assert translate(ours, REQUEST, BASE) is ours


@pytest.mark.parametrize("error", [RuntimeError("bug"), ValueError("bug"), KeyError("bug"), TypeError("bug")])
def test_what_is_no_doing_of_the_network_s_is_raised_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        translate(error, REQUEST, BASE)
    assert caught.value is error


class Transport:
    """One that stands over another, as TLS does: it can only be aborted, and only by its loop."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class Client:
    def __init__(self, **parts: object) -> None:
        vars(self).update(parts)


@pytest.mark.parametrize("closed", [True, False])
def test_a_pool_is_let_go_of_whatever_is_in_it(closed: bool) -> None:
    loop = asyncio.new_event_loop()
    transport = Transport()
    pool = {"key": [(SimpleNamespace(transport=held), 0.0) for held in (None, transport)]}
    detached: list[bool] = []
    client: Any = Client(connector=SimpleNamespace(_conns=pool), detach=lambda: detached.append(True))
    if closed:
        loop.close()
    abandon(client, loop)
    assert detached == [True]
    assert pool == {}
    if not closed:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert transport.aborted is not closed
