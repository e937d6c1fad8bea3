"""The certificate that clients see; it follows changes of its files."""

import asyncio
import logging
import ssl
from pathlib import Path

from proxy.core.errors import SettingsInvalid
from proxy.registry.endpoint import tls_reason

_log = logging.getLogger(__name__)
_SECONDS = 2.0  # between two looks at the files
_State = tuple[tuple[int, int, int], ...]


class ServerCertificate:
    """A certificate chain with its key, in PEM files that are replaced while we serve.

    A new pair counts for new connections; those that are there stay as they are. A pair that cannot be used (half
    written, or a key that belongs to another certificate) goes to the log, and the old pair stays in use.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Reads the files, blocking. Raises `SettingsInvalid`."""
        self._files = (certificate, key)
        try:
            self._state = self._look()
            self._current = self._load()
            #: What a server is started with.
            self.context = self._load()
        except (OSError, ValueError) as error:
            raise SettingsInvalid(f"http.certificate, http.key: {tls_reason(error)}") from error
        self.context.sni_callback = self._choose

    async def watch(self) -> None:
        """Keep up with the files, for ever."""
        while True:
            await asyncio.sleep(_SECONDS)
            await asyncio.to_thread(self.renew)

    def renew(self) -> None:
        """Take the files as they are now, if they changed; blocking."""
        try:
            state = self._look()
            if state == self._state:
                return
            self._state = state
            self._current = self._load()
        except (OSError, ValueError) as error:
            _log.warning("the new certificate is not used, the old one goes on: %s", tls_reason(error))
            return
        _log.info("new certificate file=%s", self._files[0])

    def _choose(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        """At each handshake, whether the client names a host or not."""
        connection.context = self._current

    def _look(self) -> _State:
        stats = [file.stat() for file in self._files]
        return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self._files)
        return context
