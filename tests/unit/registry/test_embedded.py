"""The embedded registry's own files."""

from pathlib import Path

import pytest

from proxy.registry import embedded


@pytest.mark.parametrize("damage", [b"", b"\0" * 64, b"ab", b"\xff" * 64])
def test_a_damaged_secret_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "secret"
    first = embedded._secret(file)

    assert embedded._secret(file) == first, "uploads go on after a new start"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(damage)
    anew = embedded._secret(file)
    assert len(anew) == 64
    assert embedded._secret(file) == anew != first
