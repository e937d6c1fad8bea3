"""How nixfront asks others by HTTP: bodies come as they were sent, no cookies are kept, heads may be long."""

import ssl

import aiohttp

_READ_BUFFER = 1 << 18  # bytes that aiohttp reads ahead
#: As much as the stock registry takes: tokens, and the states of uploads, can be long.
LONGEST_LINE = 1 << 20  # bytes of a request's or an answer's first line, or of a header
MOST_HEADERS = 1024


def client_session(
    *traces: aiohttp.TraceConfig, certificates: ssl.SSLContext | None = None
) -> aiohttp.ClientSession:
    """A session that is for its maker to close; `certificates`: for https, None for those of the host."""
    return aiohttp.ClientSession(
        trace_configs=list(traces),
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=0, ssl=certificates or True),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=_READ_BUFFER,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
        max_headers=MOST_HEADERS,
    )
