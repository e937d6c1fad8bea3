"""What the registry lets clients pull that have no login, as the clients of a mirror have none."""

from dataclasses import replace

import aiohttp

from proxy.core.errors import RegistryUnavailable
from proxy.registry.endpoint import Endpoint
from proxy.registry.login import Credentials, pull_scopes

_TIMEOUT = aiohttp.ClientTimeout(total=15)
_ANY = "nixfront-doctor"  # in the place of what a pattern leaves open


async def refuses_pulls(endpoint: Endpoint, pattern: str) -> bool:
    """Whether the registry refuses a repository of this name to a client without a login; `*` stands for any characters.

    Such a client fetches a token, if the registry wants one. A registry that does not answer refuses nothing.
    """
    repository = pattern.replace("*", _ANY)
    try:
        async with (
            replace(endpoint, credentials=Credentials()).opened() as registry,
            registry.ask(
                "GET", f"/v2/{repository}/manifests/latest", pull_scopes(repository), timeout=_TIMEOUT
            ) as answer,
        ):
            return answer.status in (401, 403)
    except RegistryUnavailable:  # the service gives no token
        return True
    except (aiohttp.ClientError, TimeoutError):
        return False
