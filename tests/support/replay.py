"""Requests as data: every route and method of the distribution specification, and what else may come over a wire.

They are sent in this order, each on a connection of its own, to a registry alone and to its twin behind nixfront.
`{name}` in a request line or a header stands for a value: of what was pushed before (see `stock`), or of an earlier
answer (`keep`). A row that `differs` says by which of `DIFFERENCES`, and how nixfront answers.
"""

from dataclasses import dataclass

from proxy.core.model import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

HOST = "images.example:8080"
#: Where nixfront's answer is not the registry's, and why that is right. Few.
DIFFERENCES = {
    "strict": (
        "What can be read in two ways, or is no HTTP/1.0 or 1.1, is a 400 of nixfront's own server: a proxy that guesses "
        "lets requests be smuggled. No client of a registry sends such things."
    ),
    "long name": "No registry can hold a repository whose name has more than 255 characters: a 404, where the registry fails with a 500.",
    "lenient": "Blanks before and within a request line are read as what they can only mean.",
    "no path": "Requests of the server itself, or for a tunnel, have no path that could be asked of the registry.",
    "no host": "The registry makes an address without a host; nixfront turns it into one that can be followed.",
    "not believed": "What a client says of web servers in front of it counts only where it is one of them.",
    "end": "An answer that ends with its connection is sent on in chunks, so that the client sees where it ends.",
    "go on": (
        "A client that waits before it sends its body is told to go on at once, though the registry will not read it: the "
        "stock one may wait for that body without a word."
    ),
    "absolute": "Asked for a whole address, the registry's Link is one too; through nixfront it is the path in it.",
    "ours": "Few paths at the root are nixfront's own, for those who watch it; none is of the distribution specification.",
    "mirror": "`ns` in a query says that nixfront is asked in place of another registry: only what the operator names.",
    "search": "`docker search` and `podman search` ask by an old interface, which the stock registry does not have.",
    "no tag yet": "The tags of a name that can be built are an empty list before there are any, and after the last one is gone.",
    "condition": (
        "nixfront decides the condition of a request for a manifest, by the answer that this client would get: a 304 has its "
        "ETag, and lists, weak validators and * are read."
    ),
    "unknown tag": "A tag that nobody has is what nixfront is for: it says why it cannot make it.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A request. `body`: bytes, or the name of a prepared one; `then`: a body that waits for a 100.

    `keep`: the name under which the answer's Location is kept, less its host. `bare`: without a Host.
    """

    line: str
    headers: tuple[str, ...] = ()
    body: bytes | str = b""
    then: bytes | str = b""
    keep: str = ""
    bare: bool = False
    differs: tuple[str, int] | None = None

    @property
    def version(self) -> str:
        """The request line, with a version where it has none."""
        return self.line if " HTTP/" in self.line or not self.line.count(" ") else f"{self.line} HTTP/1.1"


def row(
    line: str,
    *headers: str,
    body: bytes | str = b"",
    then: bytes | str = b"",
    keep: str = "",
    bare: bool = False,
    differs: tuple[str, int] | None = None,
) -> Row:
    """A row of the table."""
    return Row(line, headers, body, then, keep, bare, differs)


def accept(*types: str) -> tuple[str, ...]:
    """A line for each type, as docker sends them."""
    return tuple(f"Accept: {type_}" for type_ in types)


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


TOOL = "/v2/team/tool"
ABSENT = "sha256:" + "0" * 64
OCTETS = "Content-Type: application/octet-stream"
LONG_NAME = "/".join(["abcdefghij"] * 23)
TYPES = (DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_LIST, OCI_INDEX)

PING = [
    row("GET /v2/"),
    row("HEAD /v2/"),
    row("GET /v2/", "User-Agent: docker/26.1 go/go1.21", "Accept-Encoding: gzip"),
    row("GET /v2/?x=y"),
    row("GET /v2"),
    row("GET /"),
    row("GET /v1/_ping"),
    row("GET /v1/search?q=tool&n=25", differs=("search", 200)),
    row("POST /v1/search?q=tool"),
    row("GET /v2/", "Authorization: Basic dXNlcjpwYXNzd29yZA=="),
    row("GET /v2/", "Authorization: Bearer nonsense"),
    row("GET /v2/ HTTP/1.0"),
    row("HEAD /v2/ HTTP/1.0"),
    row("GET /v2/ HTTP/1.0", bare=True),
    row("OPTIONS /v2/", "Origin: http://page.example", "Access-Control-Request-Method: GET"),
    row("POST /v2/"),
    row("POST /v2/", "Content-Length: 3", body=b"abc"),
    row("PUT /v2/", "Content-Length: 0"),
    row("DELETE /v2/"),
    row("PATCH /v2/"),
    row("TRACE /v2/"),
    row("PURGE /v2/"),
    row("PROPFIND /v2/"),
]

MANIFESTS = [
    *(row(f"{method} {TOOL}/manifests/v1", *accept(*TYPES)) for method in ("GET", "HEAD")),
    *(row(f"{method} {TOOL}/manifests/oci", *accept(*TYPES)) for method in ("GET", "HEAD")),
    *(row(f"{method} {TOOL}/manifests/index", *accept(*TYPES)) for method in ("GET", "HEAD")),
    *(row(f"{method} {TOOL}/manifests/{{manifest}}", *accept(*TYPES)) for method in ("GET", "HEAD")),
    row(f"GET {TOOL}/manifests/v1", f"Accept: {', '.join(TYPES)}"),
    row(f"GET {TOOL}/manifests/v1", f"Accept: {OCI_MANIFEST};q=0.5, {DOCKER_MANIFEST} ; q=1"),
    row(f"GET {TOOL}/manifests/v1", "ACCEPT: text/plain", f"accept: {DOCKER_MANIFEST}", "aCCept: */*"),
    row(f"GET {TOOL}/manifests/v1"),
    row(f"HEAD {TOOL}/manifests/v1"),
    row(f"GET {TOOL}/manifests/v1", "Accept: */*"),
    row(f"GET {TOOL}/manifests/v1", "Accept:"),
    row(f"GET {TOOL}/manifests/oci", f"Accept: {DOCKER_MANIFEST}"),
    row(f"HEAD {TOOL}/manifests/oci", f"Accept: {DOCKER_MANIFEST}"),
    row(f"GET {TOOL}/manifests/index", f"Accept: {DOCKER_MANIFEST}"),
    row(f"GET {TOOL}/manifests/{{manifest}}"),
    row(f"GET {TOOL}/manifests/v1 HTTP/1.0", *accept(*TYPES)),
    *(
        row(
            f"{method} {TOOL}/manifests/v1",
            *accept(*TYPES),
            f"If-None-Match: {condition}",
            differs=("condition", 304),
        )
        for method in ("GET", "HEAD")
        for condition in (
            '"{manifest}"',
            "{manifest}",
            'W/"{manifest}"',
            'W/"{manifest}", "other"',
            '"other", "{manifest}"',
            "*",
        )
    ),
    row(
        f"GET {TOOL}/manifests/v1",
        *accept(*TYPES),
        'If-None-Match: "other"',
        'If-None-Match: "{manifest}"',
        differs=("condition", 304),
    ),
    row(f"GET {TOOL}/manifests/v1", 'If-None-Match: "{manifest}"', differs=("condition", 200)),
    row(
        f"HEAD {TOOL}/manifests/v1",
        "Accept: */*",
        'If-None-Match: "{manifest}"',
        differs=("condition", 200),
    ),
    row(
        f"GET {TOOL}/manifests/{{manifest}}",
        *accept(*TYPES),
        'If-None-Match: "{manifest}"',
        differs=("condition", 304),
    ),
    row(f"GET {TOOL}/manifests/v1", *accept(*TYPES), 'If-None-Match: "other", W/"third"'),
    row(f"GET {TOOL}/manifests/v1", *accept(*TYPES), 'If-None-Match: ""'),
    row(f"GET {TOOL}/manifests/nosuch", "If-None-Match: *", differs=("unknown tag", 404)),
    row(f"GET {TOOL}/manifests/{ABSENT}", *accept(*TYPES), "If-None-Match: *"),
    row(f"GET {TOOL}/manifests/v1", *accept(*TYPES), 'If-Match: "other"'),
    row(f"GET {TOOL}/manifests/v1", *accept(*TYPES), "If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT"),
    row(f"GET {TOOL}/manifests/v1", *accept(OCI_MANIFEST, OCI_INDEX)),
    row(f"HEAD {TOOL}/manifests/v1", *accept(OCI_MANIFEST, OCI_INDEX)),
    row(f"HEAD {TOOL}/manifests/v1", "Accept: */*"),
    row(f"HEAD {TOOL}/manifests/oci"),
    row(f"HEAD {TOOL}/manifests/oci", "Accept: */*"),
    row(f"GET {TOOL}/manifests/{{oci}}", "Accept: */*"),
    row(f"GET {TOOL}/manifests/v1", f"Accept: {DOCKER_MANIFEST};q=0"),
    row(f"GET {TOOL}/manifests/v1", *accept(*TYPES), "Range: bytes=0-9"),
    row(f"GET {TOOL}/manifests/v1?ns=docker.io", *accept(*TYPES), differs=("mirror", 404)),
    row(f"GET {TOOL}/manifests/v1?other=docker.io", *accept(*TYPES)),
    row(f"GET {TOOL}/manifests/{ABSENT}", *accept(*TYPES)),
    row(f"HEAD {TOOL}/manifests/{ABSENT}", *accept(*TYPES)),
    row(f"GET {TOOL}/manifests/sha256:xyz"),
    row(f"GET {TOOL}/manifests/sha256:"),
    row(f"GET {TOOL}/manifests/md5:{'0' * 32}"),
    row(f"GET {TOOL}/manifests/sha512:{'0' * 128}"),
    row(f"GET {TOOL}/manifests/sha256:{'A' * 64}"),
    row(f"GET {TOOL}/manifests/sha256%3A{'0' * 64}"),
    row(f"GET {TOOL}/manifests/.INVALID_MANIFEST_NAME"),
    row(f"HEAD {TOOL}/manifests/.INVALID_MANIFEST_NAME"),
    row(f"GET {TOOL}/manifests/-v1"),
    row(f"GET {TOOL}/manifests/"),
    row(f"GET {TOOL}/manifests"),
    row(f"GET {TOOL}/manifests/a/b"),
    row(f"GET {TOOL}/manifests/sha256-{'0' * 64}"),
    row(f"GET {TOOL}/manifests/sha256-{'0' * 64}.sig"),
    row(f"GET {TOOL}/manifests/{'x' * 129}"),
    row(f"GET {TOOL}/manifests/nosuch", differs=("unknown tag", 404)),
    row(f"HEAD {TOOL}/manifests/nosuch", *accept(*TYPES), differs=("unknown tag", 404)),
    row(f"POST {TOOL}/manifests/v1"),
    row(f"PATCH {TOOL}/manifests/v1"),
    row(f"OPTIONS {TOOL}/manifests/v1"),
]

NAMES = [
    row("GET /v2/UPPER/manifests/v1"),
    row("GET /v2/a..b/manifests/v1"),
    row("GET /v2/a___b/manifests/v1"),
    row("GET /v2/-a/manifests/v1"),
    row("GET /v2/a-/manifests/v1"),
    row("GET /v2/gtk+/manifests/v1"),
    row("GET /v2/a%20b/manifests/v1"),
    row("GET /v2/%61/manifests/sha256%3Axyz"),
    row(f"GET /v2/team%2Ftool/manifests/{ABSENT}"),
    row("GET /v2/team%2Ftool/manifests/v1", *accept(*TYPES)),
    row("GET /v2/team/t%6Fol/manifests/v1", *accept(*TYPES)),
    row("GET /v2/team/tool/manifests/v%31", *accept(*TYPES)),
    row("GET /v2/team/tool/%6Danifests/v1", *accept(*TYPES)),
    row(f"GET /v2/{LONG_NAME}/manifests/{ABSENT}"),
    row(f"GET /v2/{'a' * 300}/manifests/{ABSENT}", differs=("long name", 404)),
    row(f"GET /v2/{'a' * 30_000}/manifests/{ABSENT}", differs=("long name", 404)),
    row("GET /v2/%ff/manifests/v1"),
    row("GET /v2/%E2%82%AC/manifests/v1"),
    row("GET /v2/%00/manifests/v1"),
    row("GET /v2/a%0Ab/manifests/v1"),
    row("GET /v2/a%0D%0AX:%20y/manifests/v1"),
    row("GET /v2/a%5Cb/manifests/v1"),
    row("GET /v2/manifests/v1"),
    row("GET /v2/manifests/manifests/sha256:xyz"),
    row("GET //v2/"),
    row("GET /v2//"),
    row("GET /v2//team/tool/manifests/v1"),
    row("GET /v2/team//tool/manifests/v1"),
    row("GET /v2/team/tool//manifests/v1"),
    row("GET /v2/../v2/_catalog"),
    row("GET /v2/./_catalog"),
    row("GET /v2/team/../_catalog"),
    row("GET /v2/team/%2e%2e/_catalog"),
    row("GET /v2/team/..%2f_catalog"),
    row("GET /../../etc/passwd"),
    row("GET /v2/%2e%2e/%2e%2e/etc/passwd"),
    row("GET /v2/%zz", differs=("end", 400)),
    row("GET /v2/%", differs=("end", 400)),
    row("GET /v2/;x/manifests/v1"),
    row("GET /v2/#fragment"),
    row("GET /v2/?query#fragment"),
    row("GET /v2/\\manifests"),
    row('GET /v2/"<>`{{|}}^'),
    row("GET /nosuch"),
    row("GET /v2/nosuch"),
    row("GET /v2/team/tool"),
    row("GET /v2/team/tool/"),
    row("GET /v2/team/tool/nosuch/x"),
    row("GET /v2/_nosuch"),
    row("GET /v3/"),
    row("GET /metrics", differs=("ours", 200)),
    row("GET /debug/health"),
    row("GET /favicon.ico"),
]

BLOBS = [
    row(f"GET {TOOL}/blobs/{{layer}}"),
    row(f"HEAD {TOOL}/blobs/{{layer}}"),
    row(f"GET {TOOL}/blobs/{{config}}"),
    row(f"GET {TOOL}/blobs/{{large}}"),
    row(f"GET {TOOL}/blobs/{{layer}} HTTP/1.0"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Accept-Encoding: gzip, deflate, br, zstd"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Accept-Encoding: identity", "Accept: application/json"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=10-19"),
    row(f"HEAD {TOOL}/blobs/{{layer}}", "Range: bytes=10-19"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=0-0"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=20-"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=-7"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=10-99999999"),
    row(f"GET {TOOL}/blobs/{{large}}", "Range: bytes=1048576-3000000"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=0-1,4-5"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=0-1, 99999999-"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=99999999-"),
    row(f"HEAD {TOOL}/blobs/{{layer}}", "Range: bytes=99999999-"),
    row(f"GET {TOOL}/blobs/{{large}}", "Range: bytes=99999999-"),
    row(f"GET {TOOL}/blobs/{{layer}} HTTP/1.0", "Range: bytes=99999999-"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=5-2"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=x-y"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: lines=1-2"),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes="),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=0-4", 'If-Range: "{layer}"'),
    row(f"GET {TOOL}/blobs/{{layer}}", "Range: bytes=0-4", 'If-Range: "other"'),
    row(f"GET {TOOL}/blobs/{{layer}}", 'If-None-Match: "{layer}"'),
    row(f"HEAD {TOOL}/blobs/{{layer}}", 'If-None-Match: "{layer}"'),
    row(f"GET {TOOL}/blobs/{{layer}}", 'If-None-Match: "other"'),
    row(f"GET {TOOL}/blobs/{{layer}}", 'If-Match: "other"'),
    row(f"GET {TOOL}/blobs/{{layer}}", "If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT"),
    row(f"GET {TOOL}/blobs/{ABSENT}"),
    row(f"HEAD {TOOL}/blobs/{ABSENT}"),
    row(f"GET {TOOL}/blobs/sha256:xyz"),
    row(f"HEAD {TOOL}/blobs/sha256:xyz"),
    row(f"GET {TOOL}/blobs/"),
    row(f"GET {TOOL}/blobs/latest"),
    row("GET /v2/team/empty/blobs/{layer}"),
    row(f"PUT {TOOL}/blobs/{{layer}}", "Content-Length: 1", body=b"x"),
    row(f"POST {TOOL}/blobs/{{layer}}"),
    row(f"DELETE {TOOL}/blobs/{ABSENT}"),
    row(f"OPTIONS {TOOL}/blobs/{{layer}}"),
]

UPLOADS = [
    # in one piece
    row(f"POST {TOOL}/blobs/uploads/", keep="one"),
    row("GET {one}"),
    row("PUT {one}&digest={new}", OCTETS, "Content-Length: 8", body=b"new blob"),
    row("PUT {one}&digest={new}", OCTETS, "Content-Length: 8", body=b"new blob"),
    row(f"GET {TOOL}/blobs/{{new}}"),
    row(f"POST {TOOL}/blobs/uploads/?digest={{new}}", OCTETS, "Content-Length: 8", body=b"new blob"),
    row(f"POST {TOOL}/blobs/uploads/", "Content-Length: 0", keep="chunks"),
    # in chunks
    row("PATCH {chunks}", OCTETS, "Content-Range: 0-3", "Content-Length: 4", body=b"four", keep="chunks"),
    row("GET {chunks}", keep="chunks"),
    row("HEAD {chunks}"),
    row("PATCH {chunks}", OCTETS, "Content-Range: 4-7", "Content-Length: 4", body=b"more", keep="chunks"),
    row(
        "PATCH {chunks}", OCTETS, "Transfer-Encoding: chunked", body=chunked(b"in ", b"pieces"), keep="chunks"
    ),
    row("PUT {chunks}&digest={absent}", "Content-Length: 0"),
    row("PUT {chunks}&digest={pieces}", "Content-Length: 0"),
    row(f"POST {TOOL}/blobs/uploads/", keep="twice"),
    row("PATCH {twice}", OCTETS, "Content-Length: 4", body=b"four", keep="twice"),
    row("PUT {twice}&digest={pieces}", OCTETS, "Content-Length: 13", body=b"morein pieces"),
    row(f"GET {TOOL}/blobs/{{pieces}}"),
    row(f"POST {TOOL}/blobs/uploads/", keep="gap"),
    row("PATCH {gap}", OCTETS, "Content-Range: 7-9", "Content-Length: 3", body=b"gap", keep="gap"),
    row("PATCH {gap}", OCTETS, "Content-Range: x", "Content-Length: 1", body=b"x"),
    row("PATCH {gap}", OCTETS, "Content-Length: 1", body=b"x"),
    # large
    row(f"POST {TOOL}/blobs/uploads/", keep="large_upload"),
    row("PATCH {large_upload}", OCTETS, "Content-Length: 4194304", body="large", keep="large_upload"),
    row("PUT {large_upload}&digest={large}", "Content-Length: 0"),
    # the last piece with the end
    row(f"POST {TOOL}/blobs/uploads/", keep="ended"),
    row("PATCH {ended}", OCTETS, "Content-Range: 0-3", "Content-Length: 4", body=b"four", keep="ended"),
    row("PUT {ended}&digest={last}", OCTETS, "Content-Range: 4-7", "Content-Length: 4", body=b"last"),
    row(f"GET {TOOL}/blobs/{{last}}"),
    # by another digest
    row(f"POST {TOOL}/blobs/uploads/", keep="longer"),
    row("PUT {longer}&digest={new512}", OCTETS, "Content-Length: 8", body=b"new blob"),
    row(f"POST {TOOL}/blobs/uploads/", keep="false"),
    row(
        "PUT {false}&digest={absent512}", OCTETS, "Content-Range: 0-7", "Content-Length: 8", body=b"new blob"
    ),
    row(f"POST {TOOL}/blobs/uploads/?digest={{new512}}", OCTETS, "Content-Length: 8", body=b"new blob"),
    *(row(f"{method} {TOOL}/blobs/{{new512}}") for method in ("GET", "HEAD")),
    row("POST /v2/team/mounted/blobs/uploads/?mount={new512}&from=team/tool"),
    row("POST /v2/team/mounted/blobs/uploads/?mount={new512}"),
    # cancelled
    row(f"POST {TOOL}/blobs/uploads/", keep="cancelled"),
    row("DELETE {cancelled}"),
    row("DELETE {cancelled}"),
    row("GET {cancelled}"),
    row("PATCH {cancelled}", OCTETS, "Content-Length: 1", body=b"x"),
    # a client that asks first
    row(f"POST {TOOL}/blobs/uploads/", keep="asks"),
    row("PATCH {asks}", OCTETS, "Content-Length: 4", "Expect: 100-continue", then=b"four", keep="asks"),
    row("PUT {asks}&digest={absent}", "Content-Length: 1", "Expect: 100-continue", body=b"x"),
    row("PUT {asks}", "Content-Length: 1", "Expect: 100-continue", then=b"x", differs=("go on", 404)),
    row(
        f"PUT {TOOL}/blobs/sha256:xyz",
        "Content-Length: 1",
        "Expect: 100-continue",
        then=b"x",
        differs=("go on", 400),
    ),
    row(f"PUT {TOOL}/manifests/v9", "Content-Length: 1", "Expect: 100-Continue", then=b"x"),
    row(f"PUT {TOOL}/manifests/v9", "Content-Length: 1", "Expect: something", body=b"x"),
    row(f"PUT {TOOL}/manifests/v9 HTTP/1.0", "Content-Length: 1", "Expect: 100-continue", body=b"x"),
    row("GET /v2/", "Expect: 100-continue"),
    # mounted
    row(f"POST {TOOL}/blobs/uploads/?mount={{layer}}&from=team/other"),
    row("POST /v2/team/mounted/blobs/uploads/?mount={layer}&from=team/tool"),
    row("GET /v2/team/mounted/blobs/{layer}"),
    row(f"POST /v2/team/mounted/blobs/uploads/?mount={ABSENT}&from=team/tool"),
    row("POST /v2/team/mounted/blobs/uploads/?mount={config}&from=no/such"),
    row("POST /v2/team/mounted/blobs/uploads/?mount={config}"),
    row("POST /v2/team/mounted/blobs/uploads/?mount=sha256:xyz&from=team/tool"),
    row("POST /v2/team/mounted/blobs/uploads/?from=team/tool"),
    row("POST /v2/team/mounted/blobs/uploads/?mount={config}&from=team%2Ftool"),
    # wrong
    row(f"POST {TOOL}/blobs/uploads"),
    row(f"GET {TOOL}/blobs/uploads/"),
    row("POST /v2/UPPER/blobs/uploads/"),
    row(f"GET {TOOL}/blobs/uploads/nosuch"),
    row(f"PATCH {TOOL}/blobs/uploads/nosuch", OCTETS, "Content-Length: 1", body=b"x"),
    row(f"PUT {TOOL}/blobs/uploads/nosuch?digest={{new}}", "Content-Length: 0"),
    row(f"PATCH {TOOL}/blobs/uploads/00000000-0000-0000-0000-000000000000", "Content-Length: 1", body=b"x"),
    row(f"PUT {TOOL}/blobs/uploads/00000000-0000-0000-0000-000000000000?_state=x&digest=y"),
    row(f"POST {TOOL}/blobs/uploads/", keep="wrong"),
    row("PATCH {wrong}", "Content-Type: text/plain", "Content-Length: 1", body=b"x"),
    row("PUT {wrong}", "Content-Length: 0"),
    row("PUT {wrong}&digest=sha256:xyz", "Content-Length: 0"),
    row("POST {wrong}", "Content-Length: 0"),
]

PUSHES = [
    row(f"PUT {TOOL}/manifests/v2", f"Content-Type: {DOCKER_MANIFEST}", "{length}", body="manifest"),
    row(f"GET {TOOL}/manifests/v2", *accept(*TYPES)),
    row(f"PUT {TOOL}/manifests/v2", f"Content-Type: {OCI_MANIFEST}", "{oci_length}", body="oci"),
    row(f"GET {TOOL}/manifests/v2", *accept(*TYPES)),
    row(
        f"PUT {TOOL}/manifests/{{manifest}}", f"Content-Type: {DOCKER_MANIFEST}", "{length}", body="manifest"
    ),
    row(f"PUT {TOOL}/manifests/{ABSENT}", f"Content-Type: {DOCKER_MANIFEST}", "{length}", body="manifest"),
    row(f"PUT {TOOL}/manifests/sha256:xyz", f"Content-Type: {OCI_MANIFEST}", "{oci_length}", body="oci"),
    row(f"PUT {TOOL}/manifests/{{oci}}", f"Content-Type: {OCI_MANIFEST}", "{oci_length}", body="oci"),
    row(
        f"PUT {TOOL}/manifests/{{oci}}?tag=v4&tag=v5",
        f"Content-Type: {OCI_MANIFEST}",
        "{oci_length}",
        body="oci",
    ),
    row(f"GET {TOOL}/tags/list"),
    row(f"PUT {TOOL}/manifests/both", f"Content-Type: {OCI_INDEX}", "{both_length}", body="both"),
    row(f"PUT {TOOL}/manifests/{{both}}", f"Content-Type: {OCI_INDEX}", "{both_length}", body="both"),
    row(f"PUT {TOOL}/manifests/{{both}}?tag=v7", f"Content-Type: {OCI_INDEX}", "{both_length}", body="both"),
    *(row(f"{method} {TOOL}/manifests/both", *accept(*TYPES)) for method in ("GET", "HEAD")),
    row(f"PUT {TOOL}/manifests/{{oci512}}", f"Content-Type: {OCI_MANIFEST}", "{oci_length}", body="oci"),
    row(
        f"PUT {TOOL}/manifests/{{oci512}}?tag=v6",
        f"Content-Type: {OCI_MANIFEST}",
        "{oci_length}",
        body="oci",
    ),
    row(
        f"PUT {TOOL}/manifests/{{both512}}?tag=v8", f"Content-Type: {OCI_INDEX}", "{both_length}", body="both"
    ),
    row(f"PUT {TOOL}/manifests/{{both512}}", f"Content-Type: {OCI_INDEX}", "{both_length}", body="both"),
    *(row(f"{method} {TOOL}/manifests/{{oci512}}", *accept(*TYPES)) for method in ("GET", "HEAD")),
    row(f"PUT {TOOL}/manifests/v3", "{length}", body="manifest"),
    row(f"PUT {TOOL}/manifests/v3", "Content-Type: application/json", "{length}", body="manifest"),
    row("PUT /v2/team/lacks/manifests/v1", f"Content-Type: {DOCKER_MANIFEST}", "{length}", body="manifest"),
    row(f"PUT {TOOL}/manifests/v3", f"Content-Type: {DOCKER_MANIFEST}", "Content-Length: 3", body=b"{ }"),
    row(f"PUT {TOOL}/manifests/v3", f"Content-Type: {DOCKER_MANIFEST}", "Content-Length: 0"),
    row(f"PUT {TOOL}/manifests/v3", f"Content-Type: {DOCKER_MANIFEST}"),
    row(
        f"PUT {TOOL}/manifests/v3",
        f"Content-Type: {DOCKER_MANIFEST}",
        "Transfer-Encoding: chunked",
        body="chunked manifest",
    ),
    row(
        f"PUT {TOOL}/manifests/v3", f"Content-Type: {DOCKER_MANIFEST}", "Content-Length: 4194305", body="huge"
    ),
    row(f"PUT {TOOL}/manifests/-v3", f"Content-Type: {DOCKER_MANIFEST}", "{length}", body="manifest"),
    row("PUT /v2/UPPER/manifests/v3", f"Content-Type: {DOCKER_MANIFEST}", "{length}", body="manifest"),
]

LISTS = [
    row("GET /v2/_catalog"),
    row("HEAD /v2/_catalog"),
    row("GET /v2/_catalog?n=1"),
    row("GET /v2/_catalog?n=2&last=shelf/b"),
    row("GET /v2/_catalog?last=shelf/b&n=2"),
    row("GET /v2/_catalog?n=100&last=zzz"),
    row("GET /v2/_catalog?n=0"),
    row("GET /v2/_catalog?n=-1"),
    row("GET /v2/_catalog?n=x"),
    row("GET /v2/_catalog?n=99999999999999999999"),
    row("GET /v2/_catalog?last=shelf%2Fb"),
    row("GET /v2/_catalog?n=1&n=3"),
    row("GET /v2/_catalog?n=1;last=x"),
    row("GET /v2/_catalog/"),
    row("GET /v2/%5fcatalog"),
    row("POST /v2/_catalog"),
    row(f"GET {TOOL}/tags/list"),
    row(f"HEAD {TOOL}/tags/list"),
    row(f"GET {TOOL}/tags/list?n=1"),
    row(f"GET {TOOL}/tags/list?n=1&last=v1"),
    row(f"GET {TOOL}/tags/list?n=0"),
    row(f"GET {TOOL}/tags/list?n=x"),
    row(f"GET {TOOL}/tags/list?last=nosuch"),
    row(f"GET {TOOL}/tags/list/"),
    row(f"GET {TOOL}/tags"),
    row(f"POST {TOOL}/tags/list"),
    row(f"DELETE {TOOL}/tags/list"),
    row("GET /v2/UPPER/tags/list"),
    row("GET /v2/nosuch/tags/list", differs=("no tag yet", 200)),
    row("HEAD /v2/nosuch/tags/list"),
    row("GET /v2/no/such--00/tags/list"),
    row("GET /v2/team/mounted/tags/list", differs=("no tag yet", 200)),
    row("GET /v2/nosuch/tags/list?n=1", differs=("no tag yet", 200)),
    row(f"GET {TOOL}/tags/list?n=1&last=nosuch"),
    row(f"GET {TOOL}/referrers/{{manifest}}"),
    row(f"GET {TOOL}/referrers/{{manifest}}?artifactType=application/x"),
    row(f"GET {TOOL}/referrers/sha256:xyz"),
]

ODD_HEADERS = [
    row("GET /v2/", "X-Thing: one", "X-Thing: two", "x-thing: three"),
    row("GET /v2/", "X-Empty:", "X-Blank:    "),
    row("GET /v2/", "X-Bytes: \xff\x80\xe4"),
    row("GET /v2/", "X-Tab: a\tb"),
    row("GET /v2/", f"X-Long: {'y' * 100_000}"),
    row("GET /v2/", f"Authorization: Bearer {'t' * 60_000}"),
    row("GET /v2/", *(f"X-{number}: y" for number in range(400))),
    row("GET /v2/", "Connection: X-Thing", "X-Thing: mine"),
    row("GET /v2/", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    row("GET /v2/", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"),
    row("GET /v2/", "TE: trailers, deflate", "Trailer: X"),
    row("GET /v2/", "Proxy-Authorization: Basic eDp5", "Proxy-Connection: keep-alive"),
    row("GET /v2/", "Cookie: a=b; c=d", "Referer: http://x.example/", "Origin: http://x.example"),
    row("GET /v2/", "Cache-Control: no-cache", "Pragma: no-cache"),
    row("GET /v2/", "Content-Type: text/plain"),
    row("GET /v2/", "Content-Length: 5", body=b"hello"),
    row("GET /v2/", "Transfer-Encoding: chunked", body=chunked(b"hello")),
    row("GET /v2/", "Transfer-Encoding: chunked", body=b"5;x=y\r\nhello\r\n0\r\nX-Trailer: z\r\n\r\n"),
    row("GET /v2/", "X-HTTP-Method-Override: DELETE"),
    row("GET http://elsewhere.example/v2/"),
    row(f"GET http://elsewhere.example{TOOL}/manifests/v1", *accept(*TYPES)),
    row("GET http://elsewhere.example:99/v2/_catalog"),
    row("GET http://elsewhere.example:99/v2/_catalog?n=1", differs=("absolute", 200)),
    row(f"POST http://elsewhere.example:99{TOOL}/blobs/uploads/"),
    row("GET http://user:word@elsewhere.example/v2/"),
    row(f"POST {TOOL}/blobs/uploads/", "X-Forwarded-For: 10.9.8.7"),
    row(f"POST {TOOL}/blobs/uploads/", "X-Forwarded-Host: evil.example", differs=("not believed", 202)),
    row(f"POST {TOOL}/blobs/uploads/", "X-Forwarded-Proto: https", differs=("not believed", 202)),
    row(f"POST {TOOL}/blobs/uploads/", "Forwarded: host=evil.example", differs=("not believed", 202)),
    row(f"POST {TOOL}/blobs/uploads/ HTTP/1.0", bare=True, differs=("no host", 202)),
    row(f"POST {TOOL}/blobs/uploads/", "Host: [::1]:5000", bare=True),
    row(f"POST {TOOL}/blobs/uploads/", "Host: REGISTRY.example", bare=True),
]

BAD = [
    row("GET /v2/", bare=True, differs=("strict", 400)),
    row("GET /v2/", "Host: second.example"),
    row("GET /v2/", "X Y: z", differs=("strict", 400)),
    row("GET /v2/", "X : z", differs=("strict", 400)),
    row("GET /v2/", ": z", differs=("strict", 400)),
    row("GET /v2/", "no colon"),
    row("GET /v2/", "X: a\r\n folded", differs=("strict", 400)),
    row("GET /v2/", "X: a\0b", differs=("strict", 400)),
    row("GET /v2/", "Content-Length: x"),
    row("GET /v2/", "Content-Length: -1"),
    row("GET /v2/", "Content-Length: 3", "Content-Length: 4", body=b"abcd"),
    row(
        "GET /v2/",
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        body=chunked(b"abc"),
        differs=("strict", 400),
    ),
    row("GET /v2/", "Transfer-Encoding: rot13", differs=("strict", 400)),
    row("GET /v2/", f"X-Long: {'y' * 2_000_000}"),
    row("FOO /v2/", differs=("strict", 400)),
    row("get /v2/", differs=("strict", 400)),
    row("GET /v2/\xe4", differs=("strict", 400)),
    row("GET /v2/a b"),
    row("GET v2/"),
    row("GET /v2/ HTTP/1.2", differs=("strict", 400)),
    row("GET /v2/ HTP/1.1"),
    row("garbage", bare=True),
    row("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", bare=True),
    row("GET /v2/ HTTP/2.0"),
    row("GET /v2/ HTTP/0.9"),
    row("GET  /v2/", differs=("lenient", 200)),
    row("\r\nGET /v2/", differs=("lenient", 200)),
    row("OPTIONS *", differs=("no path", 404)),
    row("CONNECT elsewhere.example:443", differs=("no path", 404)),
]

DELETES = [
    row("DELETE /v2/_catalog"),
    row(f"DELETE {TOOL}/manifests/v2"),
    row(f"DELETE {TOOL}/manifests/sha256:xyz"),
    row(f"DELETE {TOOL}/manifests/{ABSENT}"),
    row(f"DELETE {TOOL}/manifests/{{oci}}"),
    row(f"DELETE {TOOL}/manifests/{{oci}}"),
    row(f"GET {TOOL}/manifests/{{oci}}", *accept(*TYPES)),
    row(f"GET {TOOL}/tags/list"),
    row("DELETE /v2/team/mounted/blobs/{layer}"),
    row("DELETE /v2/team/mounted/blobs/{layer}"),
    row("HEAD /v2/team/mounted/blobs/{layer}"),
    row("DELETE /v2/no/such/manifests/{manifest}"),
    row(f"DELETE {TOOL}/manifests/{{oci512}}"),
    row(f"DELETE {TOOL}/blobs/{{new512}}"),
    row(f"DELETE {TOOL}/manifests/{{both}}"),
    row(f"HEAD {TOOL}/manifests/{{both}}", *accept(*TYPES)),
    row(f"DELETE {TOOL}/blobs/sha256:xyz"),
    row(f"DELETE {TOOL}/manifests/{{manifest}}"),
    row(f"GET {TOOL}/manifests/{{manifest}}", *accept(*TYPES)),
    row("DELETE /v2/shelf/e/manifests/{manifest}"),
    row("GET /v2/shelf/e/tags/list", differs=("no tag yet", 200)),
    row("HEAD /v2/shelf/e/tags/list"),
]

SUITE = "/v2/team/suite"
_BOTH = accept(OCI_INDEX, OCI_MANIFEST)


def _pushed(name: str, media_type: str) -> list[Row]:
    """A manifest comes by digest and by tag, and is read again both ways."""
    head = (f"Content-Type: {media_type}", f"{{{name}_length}}")
    ways = (f"{SUITE}/manifests/{{{name}}}", f"{SUITE}/manifests/{name}")
    return [
        *(row(f"PUT {way}", *head, body=name) for way in ways),
        *(row(f"{method} {way}", *_BOTH) for way in ways for method in ("GET", "HEAD")),
    ]


def _refused(name: str, media_type: str) -> list[Row]:
    """A manifest that the registry does not take is not there afterwards."""
    head = (f"Content-Type: {media_type}", f"{{{name}_length}}")
    ways = (f"{SUITE}/manifests/{{{name}}}", f"{SUITE}/manifests/{name}")
    return [
        *(row(f"PUT {way}", *head, body=name) for way in ways),
        *(row(f"{method} {ways[0]}", *_BOTH) for method in ("GET", "HEAD")),
    ]


# What the conformance suite of the distribution specification asks for, and no row above does.
CONFORMANCE = [
    # blobs that are empty, or as short as JSON can be
    row(f"POST {SUITE}/blobs/uploads/", "Content-Length: 0", keep="nothing"),
    row("PUT {nothing}&digest={empty}", OCTETS, "Content-Length: 0"),
    *(row(f"{method} {SUITE}/blobs/{{empty}}") for method in ("HEAD", "GET")),
    row(
        f"POST {SUITE}/blobs/uploads/?digest={{braces}}",
        OCTETS,
        "Content-Length: 2",
        body=b"{}",
        keep="short",
    ),
    row("PUT {short}&digest={braces}", OCTETS, "Content-Length: 2", body=b"{}"),
    *(row(f"{method} {SUITE}/blobs/{{braces}}") for method in ("HEAD", "GET")),
    row(f"POST {SUITE}/blobs/uploads/", keep="tail"),
    row("PUT {tail}&digest={new}", OCTETS, "Content-Length: 8", body=b"new blob"),
    # pieces out of order
    row(f"POST {SUITE}/blobs/uploads/", "Content-Length: 0", keep="order"),
    row("PATCH {order}", OCTETS, "Content-Range: 0-3", "Content-Length: 4", body=b"four", keep="order"),
    row("PATCH {order}", OCTETS, "Content-Range: 8-10", "Content-Length: 3", body=b"in "),
    row("PATCH {order}", OCTETS, "Content-Range: 0-3", "Content-Length: 4", body=b"four"),
    row("GET {order}"),
    row("PUT {order}&digest={pieces}", OCTETS, "Content-Range: 11-16", "Content-Length: 6", body=b"pieces"),
    row(f"HEAD {SUITE}/blobs/{{pieces}}"),
    # bytes that are not those of their digest
    row(f"POST {SUITE}/blobs/uploads/?digest={{new}}", OCTETS, "Content-Length: 5", body=b"oh no"),
    row(f"POST {SUITE}/blobs/uploads/", keep="bad"),
    row("PUT {bad}&digest={new}", OCTETS, "Content-Length: 5", body=b"oh no"),
    row(f"POST {SUITE}/blobs/uploads/", keep="bad"),
    row("PATCH {bad}", OCTETS, "Transfer-Encoding: chunked", body=chunked(b"oh ", b"no"), keep="bad"),
    row("PUT {bad}&digest={new}", OCTETS, "Content-Length: 0"),
    row(f"POST {SUITE}/blobs/uploads/", keep="bad"),
    row("PATCH {bad}", OCTETS, "Content-Range: 0-2", "Content-Length: 3", body=b"oh ", keep="bad"),
    row("PUT {bad}&digest={new}", OCTETS, "Content-Range: 3-4", "Content-Length: 2", body=b"no"),
    # manifests of every kind
    *_pushed("plain", OCI_MANIFEST),
    *_pushed("extra", OCI_MANIFEST),
    *_pushed("data", OCI_MANIFEST),
    *_pushed("bare", OCI_MANIFEST),
    *_pushed("annotated", OCI_MANIFEST),
    *_pushed("artifact", OCI_MANIFEST),
    *_pushed("orphan", OCI_MANIFEST),
    *_pushed("platforms", OCI_INDEX),
    *_pushed("nested", OCI_INDEX),
    *_pushed("nobody", OCI_INDEX),
    *_pushed("attached", OCI_INDEX),
    *_refused("foreign", OCI_MANIFEST),
    *_refused("sparse", OCI_MANIFEST),
    *_refused("gaps", OCI_INDEX),
    row(f"PUT {SUITE}/manifests/{{plain}}", f"Content-Type: {OCI_MANIFEST}", "{bare_length}", body="bare"),
    # what refers to them, and lists
    row(f"GET {SUITE}/referrers/{{plain}}"),
    row(f"GET {SUITE}/referrers/{{plain}}?artifactType=application%2Fvnd.example.kind"),
    row(f"GET {SUITE}/referrers/{ABSENT}"),
    row(f"GET {SUITE}/tags/list"),
    row(f"GET {SUITE}/tags/list?last=data"),
    # and away with them
    row(f"DELETE {SUITE}/manifests/plain"),
    row(f"DELETE {SUITE}/manifests/{{attached}}"),
    row(f"HEAD {SUITE}/manifests/{{attached}}", *_BOTH),
    row(f"GET {SUITE}/manifests/attached", *_BOTH, differs=("unknown tag", 404)),
    row(f"DELETE {SUITE}/blobs/{{empty}}"),
    row(f"GET {SUITE}/blobs/{{empty}}"),
    row(f"GET {SUITE}/tags/list"),
]

SECTIONS = {
    "ping": PING,
    "manifests": MANIFESTS,
    "names": NAMES,
    "blobs": BLOBS,
    "uploads": UPLOADS,
    "pushes": PUSHES,
    "lists": LISTS,
    "odd headers": ODD_HEADERS,
    "bad requests": BAD,
    "conformance": CONFORMANCE,
    "deletes": DELETES,
}
ROWS = [row for rows in SECTIONS.values() for row in rows]
