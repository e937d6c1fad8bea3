"""Values that several parts need, made of the settings in one place: the ways to the registry and to nixfront, the operator's
words, the policy, and where things are remembered.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy import data_folder, state_sqlite, tls
from proxy.model import Policy, Preset
from proxy.names import Vocabulary
from proxy.reach import Reach
from proxy.registry_login import Credentials
from proxy.settings import Settings
from proxy.state import State


def registry(settings: Settings, url: str) -> Reach:
    """The registry of the settings, which is at this origin.

    Blocking: it reads the files. Raises `SettingsInvalid`.
    """
    chosen = settings.registry
    trusted = tls.toward_registry(chosen.ca, chosen.client_certificate, chosen.client_key)
    return Reach(url, Credentials(chosen.username, chosen.secret()), trusted)


def nixfront(settings: Settings) -> Reach:
    """The nixfront that serves with these settings on this host, which passes our user on to the registry.

    Whoever answers at its address while it is down gets no password: without a certificate it has to hold its data folder.
    Blocking: it reads the files. Raises `SettingsInvalid`.
    """
    credentials = Credentials(settings.registry.username, settings.registry.secret())
    certificate = settings.http.certificate
    if not certificate:
        ours = data_folder.is_served(settings.data_dir)
        return Reach(f"http://{settings.http.addr}", credentials if ours else Credentials())
    return Reach(f"https://{settings.http.addr}", credentials, _exactly(certificate))


def images(settings: Settings) -> Reach:
    """Where to ask about images: a registry that is our child is reached through nixfront itself.

    Blocking: it reads the files. Raises `SettingsInvalid`.
    """
    url = settings.registry.url
    return registry(settings, url) if url else nixfront(settings)


def _exactly(certificate: str) -> ssl.SSLContext:
    """Trust in this very certificate, whatever name it is for: at our own address it is ours."""
    context = tls.trusting(certificate)
    context.check_hostname = False
    return context


def policy(settings: Settings) -> Policy:
    """What a package set lets be served."""
    return Policy(**settings.policy.model_dump(exclude={"most_packages"}))


def vocabulary(settings: Settings) -> Vocabulary:
    """The operator's words, as plain values."""
    return Vocabulary(
        presets={
            name: Preset(
                packages=preset.packages,
                command=preset.command,
                user=preset.user,
                environment=tuple(sorted(preset.environment.items())),
                system=preset.system,
            )
            for name, preset in settings.presets.items()
        },
        aliases=settings.names.aliases,
        package_sets=frozenset(settings.sets),
        images=settings.images.prefix if settings.images.file else "",
        most_packages=settings.policy.most_packages,
    )


@asynccontextmanager
async def open_state(settings: Settings) -> AsyncIterator[State]:
    """What nixfront remembers, where the settings say. Raises `SettingsInvalid`."""
    if settings.state.url:
        from proxy import state_redis  # only those who use it load it

        async with state_redis.open_state(settings.state.url) as shared:
            yield shared
        return
    async with state_sqlite.open_state(settings.data_dir / "state.sqlite") as own:
        yield own
