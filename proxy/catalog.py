"""The management side: which images a registry holds, asked with docker-registry-client.

That library is loaded only here and only when it is needed: on import it silences every warning of the process (undone
below). Its own catalog call stops at the registry's first page, so the pages are asked for one by one.
"""

import warnings
from collections.abc import Iterator
from urllib.parse import quote

from proxy.errors import RegistryUnavailable

_PAGE = 100  # repositories in one answer


def images(url: str, timeout: float = 30.0) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every repository of the registry at this origin with its tags, both sorted; blocking.

    Raises `RegistryUnavailable`.
    """
    with warnings.catch_warnings():
        import requests
        from docker_registry_client._BaseClient import BaseClientV2

    class Client(BaseClientV2):  # type: ignore[misc]
        """The library's client, with pages."""

        def repositories(self, last: str) -> list[str]:
            """The names after `last`, at most a page of them."""
            self.auth.desired_scope = "registry:catalog:*"
            page = f"/v2/_catalog?n={_PAGE}" + (f"&last={quote(last, safe='')}" if last else "")
            return list(self._http_call(page, requests.get)["repositories"] or [])

        def tags(self, name: str) -> tuple[str, ...]:
            """The tags of a repository; none where the last one was deleted."""
            try:
                return tuple(sorted(self.get_repository_tags(name)["tags"] or ()))
            except requests.HTTPError as error:
                if error.response is not None and error.response.status_code == 404:
                    return ()
                raise

    client = Client(url, verify_ssl=True, api_timeout=timeout)
    last = ""
    try:
        while page := client.repositories(last):
            for name in page:
                yield name, client.tags(name)
            last = page[-1]
    except (requests.RequestException, ValueError, KeyError) as error:
        raise RegistryUnavailable(f"cannot list the images of {url}: {error}") from error
