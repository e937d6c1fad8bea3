"""The cases of the fuzz of the HTTP front: requests of real clients with some mutations, which a number and a seed make again."""

import random
import re
from dataclasses import dataclass

from tests.support import handmade

#: What the registries have, under `/v2/kept` and `/v2/marker`.
IMAGE = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])
BLOB = handmade.digest_of(IMAGE.layers[0])
#: A request inside of others, which no server may take for one.
_INNER = b"GET /v2/inner/%09d/tags/list HTTP/1.1\r\nHost: a\r\n\r\n"

_METHODS = [
    b"GET",
    b"HEAD",
    b"PUT",
    b"POST",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"TRACE",
    b"PROPFIND",
]
_TARGETS = [
    b"/v2/", b"/v2", b"/v2/_catalog", b"/v2/TOKEN/tags/list", b"/v2/TOKEN/manifests/latest", b"/v2/kept/manifests/v1",
    b"/v2/kept/blobs/" + BLOB.encode(), b"/v2/TOKEN/blobs/sha256:" + b"0" * 64, b"/v2/TOKEN/blobs/uploads/",
    b"/v2/TOKEN/blobs/uploads/no-such", b"/v2/TOKEN/manifests/sha256:" + b"f" * 64, b"/v2/TOKEN/manifests/no:digest",
    b"/v2/TOKEN/referrers/sha256:" + b"0" * 64, b"/v2/TOKEN/tags/list?n=x", b"/v2/TOKEN/tags/list?n=1&last=a",
    b"/v2//TOKEN/tags/list", b"/v2/../TOKEN/tags/list", b"/v2/%2e%2e/TOKEN/tags/list", b"/v2/TOKEN%2fx/tags/list",
    b"/v2/TOKEN/manifests/%00", b"/v2/TOKEN/manifests/" + b"t" * 129, b"/v2/TOKEN/x/" + b"n" * 256 + b"/tags/list",
    b"/v2/TOKEN/tags/list#part", b"/v2/TOKEN/tags/list?%c3%a9", b"/v2/TOKEN/tags/list;x", b"/v2/UPPER/TOKEN/tags/list",
    b"http://a/v2/TOKEN/tags/list", b"http://other.example/v2/TOKEN/tags/list", b"/v2/TOKEN/" + b"a/" * 3000 + b"tags/list",
]  # fmt: skip
#: What nixfront's parser refuses and a stock registry does not.
_ODD_METHODS = [b"get", b"X", b"GET\t", b"G(T", b""]
_LINES = [
    b"Accept: */*", b"Accept: " + IMAGE.media_type.encode(), b"Accept:", b"Accept: " + b"x/y, " * 2000, b"Range: bytes=0-0",
    b"Range: bytes=-1", b"Range: bytes=9-1", b"Range: bytes=0-0,5-6", b"Range: x", b"If-None-Match: x", b"If-Match: x",
    b"If-Modified-Since: x", b"Authorization: Basic eDp5", b"Authorization: x", b"Authorization:", b"Cookie: a=b; c",
    b"User-Agent: \xff\xfe", b"X-Request-Id: a b", b"X-Request-Id: abcdefgh12345678", b"X-Forwarded-For: 1.2.3.4",
    b"X-Forwarded-Host: evil.example", b"X-Forwarded-Proto: ftp", b"Forwarded: for=x;host=y", b"TE: trailers",
    b"Connection: keep-alive, Accept, Host", b"Keep-Alive: 99999", b"Proxy-Connection: x",
    b"Proxy-Authorization: Basic eDp5", b"X-Long: " + b"y" * 9000, b"Docker-Content-Digest: x", b"Location: http://evil.example/",
    b"Accept-Encoding: gzip;q=0, *;q=1", b"Content-Type: x", b"Content-Range: 0-9", b"Via: 1.1 x", b"Expect: 100-continue",
    b"X-HTTP-Method-Override: DELETE", b"Transfer-Encoding-X: chunked", b"Content-Lengths: 5", b"X_Y: z", b"Trailer: X-After",
]  # fmt: skip
#: What may be no HTTP any more, or HTTP that servers understand in two ways.
_ODD_LINES = [
    b"Connection: close, close", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\x0bchunked", b"Content-Length: 5",
    b"Content-Length: 0", b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length: 99999999999999999999",
    b"Content-Length: 0x5", b"Content-Length: ", b"Host: b", b"Host: a b", b"Host:", b"Host: [::1", b" folded: x", b"\tfolded",
    b"no colon", b": no name", b"X: a\0b", b"X: a\rY: b", b"X: a\nContent-Length: 5", b"X Y: z", b"\x80: z", b"Expect: something",
    b"Upgrade: websocket\r\nConnection: upgrade", b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA",
    b"X: \xe2\x80\xa8", b"X: " + b"z" * 70_000,
]  # fmt: skip
_BODIES = [b"", b"{}", b"abc" * 50, IMAGE.manifest, b"\0" * 5000]
_ENDS = [
    b"0\r\n\r\n", b"0\r\nX-After: y\r\n\r\n", b"0;last\r\n\r\n", b"000\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nodd\r\n\r\n",
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nHost: b\r\n\r\n", b"g\r\n", b"-1\r\n\r\n", b"0\n\n", b"ffffffffffffffffff\r\n", b"",
]  # fmt: skip
_FINE_ENDS = 4  # so many of them are HTTP


@dataclass(frozen=True, slots=True)
class Case:
    """Bytes of one connection. `token` is in the paths; `requests`: so many it means; `is_http`: nothing in it is odd."""

    number: int
    token: str
    pieces: tuple[bytes, ...]
    requests: int
    is_http: bool

    @property
    def first_path(self) -> bytes:
        """The path of the first request, without its query."""
        _, _, rest = b"".join(self.pieces).partition(b" ")
        return re.split(rb"[ ?#\r\n]", rest, maxsplit=1)[0]


def case(seed: int, number: int) -> Case:
    """The case of this seed and number."""
    chosen = random.Random(f"{seed}-{number}")
    token = f"fuzz{number}"
    count = chosen.choice((1, 1, 1, 1, 2, 3))
    is_http = chosen.random() < 0.5
    data = b"".join(_request(chosen, number, is_http, is_last=each == count - 1) for each in range(count))
    data = data.replace(b"TOKEN", token.encode())
    if not is_http:
        data = _broken(chosen, number, data)
    cuts = sorted(chosen.randrange(len(data) + 1) for _ in range(chosen.choice((0, 0, 1, 3))))
    pieces = tuple(data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True))
    return Case(number, token, pieces, count, is_http)


def _request(chosen: random.Random, number: int, is_http: bool, is_last: bool) -> bytes:
    method, target = (
        chosen.choice(_METHODS[:6] if chosen.random() < 0.8 else _METHODS),
        chosen.choice(_TARGETS),
    )
    if not is_http and chosen.random() < 0.1:
        method = chosen.choice(_ODD_METHODS)
    if method == b"DELETE":  # what one case deletes, another one would miss
        target = target.replace(b"kept", b"TOKEN")
    more = [chosen.choice(_LINES) for _ in range(chosen.randrange(6))]
    if is_http:  # nixfront's parser refuses some lines that come twice, and a stock registry does not
        more = list({line.split(b":")[0]: line for line in more}.values())
    lines = [b"Host: a", *more]
    version = b"HTTP/1.1"
    if not is_http:
        lines += [chosen.choice(_ODD_LINES) for _ in range(chosen.randrange(3))]
        version = chosen.choice(
            (version, version, version, b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/9", b"http/1.1", b"")
        )
    body, framing = chosen.choice([*_BODIES, _INNER % number]), chosen.choice(("none", "length", "chunks"))
    if framing == "length":
        lines.append(
            b"Content-Length: %d" % (len(body) + (0 if is_http else chosen.choice((0, 0, 0, -1, 1, 50))))
        )
    elif framing == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunks(chosen, body) + chosen.choice(_ENDS[:_FINE_ENDS] if is_http else _ENDS)
    else:
        body = b""
    if is_last:
        lines.append(b"Connection: close")
    chosen.shuffle(lines)
    return method + b" " + target + b" " + version + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body


def _chunks(chosen: random.Random, body: bytes) -> bytes:
    size = chosen.choice((1 + len(body), 7, 100))
    extension = chosen.choice((b"", b"", b";a=b", b";x"))
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)


def _broken(chosen: random.Random, number: int, data: bytes) -> bytes:
    """The bytes with a few changes anywhere."""
    for _ in range(chosen.choice((0, 1, 1, 3))):
        at = chosen.randrange(len(data) + 1)
        match chosen.randrange(5):
            case 0:
                data = data[:at] + bytes([chosen.randrange(256)]) + data[at + 1 :]
            case 1:
                data = (
                    data[:at]
                    + chosen.choice((b"\r", b"\n", b"\0", b"\r\n", b" ", b"\x7f", b":", _INNER % number))
                    + data[at:]
                )
            case 2:
                data = data[:at] + data[at + chosen.randrange(1, 9) :]
            case 3:
                data = data.replace(b"\r\n", chosen.choice((b"\n", b"\r\r\n", b"\r\n")))
            case _:
                data = data[:at] + b"Z" * chosen.choice((10, 10_000)) + data[at:]
    return data[: chosen.randrange(len(data) + 1)] if chosen.random() < 0.15 else data
