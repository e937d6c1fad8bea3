"""A store as a value, for what reads the store through a `root_tree.Listing`."""

from collections.abc import Mapping

from proxy.image.root_tree import Kind

STORE = "/nix/store"


class Tree:
    """A store that is a mapping: path -> kind of file, or the text of one; the directories follow from the paths."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = {f"{STORE}/{path}": text for path, text in files.items()}

    def kind(self, path: str) -> Kind | None:
        text = self._files.get(path)
        if text == "executable":
            return "executable"
        if text == "directory" or any(known.startswith(f"{path}/") for known in self._files):
            return "directory"
        return None if text is None else "file"

    def children(self, path: str) -> Mapping[str, Kind]:
        inside = {known.removeprefix(f"{path}/") for known in self._files if known.startswith(f"{path}/")}
        return {
            name: self.kind(f"{path}/{name}") or "file" for name in sorted({i.split("/")[0] for i in inside})
        }

    def read(self, path: str) -> str:
        return self._files[path]

    def real(self, path: str) -> str:
        return path
