"""Lists of tags: of a repository of ours they are sorted, in pages, and never `null`.

The stock registry 2.8 sends all tags at once, in any order, whatever `n` and `last` say, and `null` once the last tag is gone.
Where a tag of ours is in the repository, nixfront sorts its list, and cuts it as the distribution specification says
("Listing Tags"). A list with a `Link` stays as it is: that registry has pages of its own. Lists of other repositories stay too.
The tags of the lists of referrers (`sha256-<hex>`) are left out, as a registry with the API of referrers has none: they name no
image, and `skopeo sync`, which copies every tag of a list, would fail at them. Whoever knows a digest finds them all the same.

A name that can be built and has no tag yet has an empty list, where the registry has no such repository. Its 404 would end
`skopeo list-tags`. It would also say "nothing to pull" to a person who looks before a first pull. It starts no build and asks
nobody. The list is empty so that a page that reads the manifest of every tag starts no build either.
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode

from aiohttp import ClientResponse, hdrs, web

from proxy.core import foreign, names
from proxy.core.errors import NameInvalid
from proxy.core.names import Vocabulary
from proxy.core.request import RegistryPath
from proxy.state import State
from proxy.web.access import Access
from proxy.web.answer_cache import AnswerCache
from proxy.web.passthrough import backward
from proxy.web.verbatim import start_of_body

_LONGEST = 64 << 10  # bytes of an error, or of the start of a list that nobody here changes
_LONGEST_LIST = 4 << 20  # bytes of a list that is read whole
_REPLACED = frozenset({"content-length", "content-type"})


class TagLists:
    """Answers questions about the tags of a repository, by the registry's answer to this client."""

    def __init__(self, answers: AnswerCache, access: Access, state: State, words: Vocabulary) -> None:
        """`words`: the names that mean something to this host."""
        self._answers = answers
        self._access = access
        self._state = state
        self._words = words

    async def reply(
        self, request: web.Request, sent: RegistryPath, path: RegistryPath, answer: ClientResponse
    ) -> web.StreamResponse:
        """The reply to a request for tags. `sent`: the client's own path, which differs from `path` at a mirror."""
        start = b""
        if request.method == hdrs.METH_GET and path.is_canonical and sent.is_canonical:
            if answer.status == 404 and self._may_be_ours(path.repository):
                start = await start_of_body(answer, _LONGEST)
                if _is_name_unknown(start):
                    return _no_tags(path.repository)
            elif answer.status == 200 and not {hdrs.LINK, hdrs.CONTENT_ENCODING} & answer.headers.keys():
                is_ours = bool(await self._state.tags(path.repository))
                if is_ours or self._may_be_ours(path.repository):
                    start = await start_of_body(answer, _LONGEST_LIST if is_ours else _LONGEST)
                    document = _document(start)
                    if document is not None and (is_ours or not document["tags"]):
                        return _page(answer, document, sent)
        return await self._answers.relay(request, answer, start)

    def _may_be_ours(self, repository: str) -> bool:
        """Whether nixfront makes images of this name."""
        try:
            is_name = names.parse(repository, "latest", self._words) is not None
        except NameInvalid:
            return False
        return is_name and self._access.makes(repository)


def _is_name_unknown(body: bytes) -> bool:
    """Whether a registry says with this body that it has no such repository."""
    try:
        errors = foreign.parse(body)["errors"]
        return [error["code"] for error in errors] == ["NAME_UNKNOWN"]
    except (ValueError, KeyError, TypeError):
        return False


def _document(body: bytes) -> dict[str, Any] | None:
    """A registry's list of tags, with a list in place of null; None for all else."""
    try:
        document = foreign.parse(body)
        tags = document["tags"]
    except (ValueError, KeyError, TypeError):
        return None
    if tags is None:
        return {**document, "tags": []}
    return document if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) else None


def _no_tags(name: str) -> web.Response:
    """No tags, as the stock registry writes it."""
    return web.Response(
        body=_json({"name": name, "tags": []}),
        content_type="application/json",
        charset="utf-8",
        headers={"Docker-Distribution-Api-Version": "registry/2.0"},
    )


def _page(answer: ClientResponse, document: dict[str, Any], sent: RegistryPath) -> web.Response:
    """The part of this list that the client asks for, with a `Link` to the next one."""
    query = parse_qs(sent.query, keep_blank_values=True)
    tags, following = page(document["tags"], query.get("n", [""])[0], query.get("last", [""])[0])
    headers = [pair for pair in backward(answer.headers.items()) if pair[0].lower() not in _REPLACED]
    if following:
        again = [("ns", value) for value in query.get("ns", [])]  # of a mirror's client
        headers.append((hdrs.LINK, f'<{sent.path}?{urlencode([*again, *following])}>; rel="next"'))
    response = web.Response(
        body=_json({**document, "tags": list(tags)}), content_type="application/json", charset="utf-8"
    )
    response.headers.extend(headers)
    return response


def page(tags: Sequence[str], most: str, last: str) -> tuple[Sequence[str], list[tuple[str, str]]]:
    """At most `most` of these tags behind `last`, sorted; and the query of the next page, empty where this is the last one.

    What is no number limits nothing, as at the stock registry.
    """
    behind = [tag for tag in sorted(set(tags)) if tag > last and not names.is_referrers_list(tag)]
    if not (most.isascii() and most.isdigit()) or int(most[:18]) >= len(behind):
        return behind, []
    chosen = behind[: int(most[:18])]
    return chosen, [("n", most), ("last", chosen[-1])] if chosen else []


def _json(document: dict[str, Any]) -> bytes:
    """The document as the stock registry writes one."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
