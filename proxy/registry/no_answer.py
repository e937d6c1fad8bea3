"""Why a server gave no answer, in words for people: no class of Python, and for clients no address."""

import os

import aiohttp


def why(error: Exception) -> str:
    """Why a server gave no answer, for people. The texts of libraries hold addresses, and words of programmers."""
    match error:
        case TimeoutError():
            return "it does not answer in time"
        case aiohttp.ClientConnectorDNSError():
            return "this host finds no address for its name"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return f"TLS fails: {error.__cause__ or error}"
        case aiohttp.ClientConnectorError():
            return (os.strerror(error.os_error.errno) if error.os_error.errno else "no connection").lower()
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return "it hung up"
        case OSError(errno=int(number)) if not isinstance(error, aiohttp.ClientError):
            return os.strerror(number).lower()
        case _:
            is_of_requests = "ConnectionPool" in str(error)
            return "it does not answer" if is_of_requests else str(error) or type(error).__name__


def why_for_clients(error: Exception) -> str:
    """As `why`, without what a text of a library may hold: addresses of the operator's hosts, and signed queries."""
    match error:
        case aiohttp.ClientSSLError():
            return "TLS fails"
        case TimeoutError() | aiohttp.ClientOSError() | aiohttp.ServerDisconnectedError():
            return why(error)
        case aiohttp.ClientPayloadError() | OSError():
            return "it broke off"
        case _:
            return "its answer is no HTTP"
