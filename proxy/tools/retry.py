"""Repeat what failed for a moment, with pauses that grow. Only the caller knows which errors are worth another try."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, wait_exponential
from tenacity.wait import wait_base
from typing_extensions import override

T = TypeVar("T")

#: How often the work may run in all when it fails with this error; 1 raises the error at once.
Tries = Callable[[Exception], int]
#: Seconds to wait after this error.
PauseAfter = Callable[[Exception], float]


async def retry(work: Callable[[], Awaitable[T]], tries: Tries, pause: float | PauseAfter) -> T:
    """The result of `work`, which runs again after an error as often as `tries` allows for that error.

    A number as `pause` is the first pause in seconds, and each further pause is twice as long.

    Raises the error of the last run. Nothing but an `Exception` is ever repeated: a cancelled caller leaves at once.
    """

    async def run() -> T:
        return await work()

    def is_last(state: RetryCallState) -> bool:
        error = _error(state)
        return error is None or state.attempt_number >= tries(error)

    loop = AsyncRetrying(
        retry=lambda state: _error(state) is not None,
        stop=is_last,
        wait=_FromError(pause) if callable(pause) else wait_exponential(pause),
        reraise=True,
    )
    return await loop(run)


class _FromError(wait_base):
    """A pause that the error itself names."""

    def __init__(self, pause: PauseAfter) -> None:
        self._pause = pause

    @override
    def __call__(self, retry_state: RetryCallState) -> float:
        error = _error(retry_state)
        return 0.0 if error is None else self._pause(error)


def _error(state: RetryCallState) -> Exception | None:
    """The error of the last run; None for a result, and for what must not be repeated, as a cancellation."""
    error = state.outcome.exception() if state.outcome is not None else None
    return error if isinstance(error, Exception) else None
