"""How large an image and each of its layers may be, in sizes of NARs: no other size exists before packing."""

from collections.abc import Sequence

from proxy.core.errors import ImageTooLarge
from proxy.core.model import Closure, LayerPlan


def closure_within(most: int, closure: Closure, words: Sequence[str]) -> None:
    """Raises `ImageTooLarge` for a closure of more than `most` bytes (0: no limit); `words` are what a person typed."""
    size = sum(info.nar_size for info in closure.paths)
    bytes_within(most, size, len(closure.paths), words)


def layers_within(most: int, plans: Sequence[LayerPlan], closure: Closure, words: Sequence[str]) -> None:
    """Raises `ImageTooLarge` for a layer of more than `most` bytes (0: no limit)."""
    sizes = {info.path: info.nar_size for info in closure.paths}
    for plan in plans:
        size = sum(sizes[path] for path in plan.paths)
        if most and size > most:
            largest = max(plan.paths, key=lambda path: (sizes[path], path))
            raise ImageTooLarge(
                f"{' '.join(words)} has a layer of {size / 1e6:.0f} MB ({len(plan.paths)} store paths, the largest "
                f"is {largest}); policy.most_layer_bytes of this host allows {most / 1e6:.0f} MB"
            )


def bytes_within(most: int, size: int, paths: int, words: Sequence[str]) -> None:
    """Raises `ImageTooLarge` for a closure of more than `most` bytes (0: no limit); `paths` is 0 if nothing is fetched yet."""
    if most and size > most:
        where = f"in {paths} store paths" if paths else "that would have to be fetched"
        raise ImageTooLarge(
            f"{' '.join(words)} and what it needs are {size / 1e6:.0f} MB {where}; "
            f"policy.most_bytes of this host allows {most / 1e6:.0f} MB"
        )
