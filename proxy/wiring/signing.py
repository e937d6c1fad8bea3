"""The key that signs images, from the settings, and what `nixfront sign` needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.core.errors import SettingsInvalid, reason
from proxy.pipeline.own_tags import OwnTags
from proxy.settings import Settings
from proxy.trust.signatures import Signer, SigningKey
from proxy.upkeep.sign import ImageSigner
from proxy.wiring.commands import open_keeper
from proxy.wiring.verification import verifier


def open_signer(settings: Settings) -> Signer | None:
    """What signs with `trust.key`; None where there is no key. Blocking: it reads the file. Raises `SettingsInvalid`."""
    if not settings.trust.key:
        return None
    try:
        pem = Path(settings.trust.key).read_bytes()
    except OSError as error:
        raise SettingsInvalid(f"trust.key: {settings.trust.key}: {reason(error)}") from error
    return Signer(SigningKey(pem), settings.identity)


@asynccontextmanager
async def image_signer(settings: Settings) -> AsyncIterator[ImageSigner]:
    """A signer of what the registry has. Raises a `NixfrontError`, such as `SettingsInvalid` without a key."""
    signer = await asyncio.to_thread(open_signer, settings)
    if signer is None:
        raise SettingsInvalid("trust.key: there is no key to sign with")
    async with open_keeper(settings) as keeper, verifier(settings) as checks:
        tags = OwnTags(keeper.registry, keeper.state, signer=signer)
        yield ImageSigner(keeper.registry, keeper.state, tags.sign, checks.one)
