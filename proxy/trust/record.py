"""The facts of an image as a file: written by the server, read by the child process, and left by a server that was killed."""

from dataclasses import asdict

from pydantic import TypeAdapter

from proxy.core.model import canonical_json
from proxy.trust.facts import ImageFacts

#: Made here: the first one of a process reads the host's files.
_FACTS = TypeAdapter(ImageFacts)


def write(facts: ImageFacts) -> bytes:
    """The facts as JSON."""
    return canonical_json(asdict(facts))


def read(data: bytes) -> ImageFacts:
    """The facts in this JSON. Raises `ValueError`."""
    return _FACTS.validate_json(data)
