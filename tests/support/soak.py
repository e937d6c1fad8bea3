"""The soak: a real nixfront, registry and Redis, clients that do what a seed says, and weather.

Clients pull images that are there, that are new, and that cannot be made; push, tag and delete; go away in the middle, or
stay and say nothing. The weather breaks the registry's answers, kills it or Redis, collects Nix's garbage, prunes, and
changes the package set under a moving tag. Every minute all is calm for a moment, and then it is measured.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import aiohttp

from tests.support import handmade
from tests.support.counts import plain_counts
from tests.support.processes import free_port, program, run, write
from tests.support.servers import FROM_CHECKOUT, Server, nixfront, redis, stock_registry
from tests.support.shim import Cut, Delay, Rule, Shim, Status, shim
from tests.support.stored import stored_tags
from tests.support.validate import validate

_CLIENTS = 8
_CALM_EVERY = 60.0  # seconds
_TOOLS = 14  # packages of the set; images are of one to three of them
_TRIES = 8  # of a pull that the weather spoils
_ALWAYS = 1 << 30
_HARMLESS = (404, 405, 429, 503)  # what a client may be told while something is broken
_MADE = handmade.image([handmade.tar(entries) for entries in handmade.store_layers()])

_SET = """{ system }:
let
  make = name: script: derivation {
    inherit system name; builder = "/bin/sh"; args = [ "-euc" script ]; PATH = "/usr/bin:/bin";
  };
  tool = number: make "tool${toString number}-REVISION" ''
    mkdir -p $out/bin; echo ${toString number} REVISION > $out/bin/tool${toString number}
    head -c 200000 /dev/zero | tr '\\0' '${toString number}' > $out/data; chmod +x $out/bin/tool${toString number}
  '';
in builtins.listToAttrs (map (number: { name = "tool${toString number}"; value = tool number; }) (builtins.genList (n: n) TOOLS))
// { broken = make "broken" "echo this is how it failed >&2; exit 3"; slow = make "slow-REVISION" "sleep 3; mkdir $out; echo > $out/x"; }
"""


@dataclass
class Sample:
    """What nixfront has at a calm moment."""

    minute: float
    memory: int
    descriptors: int
    tasks: int
    processes: int


@dataclass
class Report:
    """What happened."""

    seed: int
    did: Counter[str] = field(default_factory=Counter)
    weather: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def grown(self) -> list[str]:
        """What is more in the last third than in the second, by more than noise."""
        third = len(self.samples) // 3
        if not third:
            return ["too short to say anything of growth: it takes three calm moments"]
        found = []
        allowed = {"memory": 16 << 20, "descriptors": 8, "tasks": 8, "processes": 1}
        for name, noise in allowed.items():
            early = median(getattr(sample, name) for sample in self.samples[third : 2 * third])
            late = median(getattr(sample, name) for sample in self.samples[2 * third :])
            if late > early * 1.05 + noise:
                found.append(f"{name} grew from {early:.0f} to {late:.0f}")
        return found


class Soak:
    """One run."""

    def __init__(self, folder: Path, seed: int, minutes: float) -> None:
        self.report = Report(seed)
        self._folder = folder
        self._chosen = random.Random(seed)
        self._ends = time.monotonic() + minutes * 60
        self._began = time.monotonic()
        self._revision = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._registry_port, self._redis_port = free_port(), free_port()
        self._stack = contextlib.AsyncExitStack()
        self._servers: dict[str, Server] = {}

    async def run(self) -> None:
        async with self._stack:
            await self._start("registry")
            await self._start("redis")
            self._write_set()
            self._relay: Shim = await self._stack.enter_async_context(
                shim(f"http://127.0.0.1:{self._registry_port}")
            )
            self._front = await self._stack.enter_async_context(
                nixfront(self._folder, settings=self._settings(), command=FROM_CHECKOUT)
            )
            weather = asyncio.create_task(self._weather())
            clients = [asyncio.create_task(self._client()) for _ in range(_CLIENTS)]
            while time.monotonic() < self._ends:
                await asyncio.sleep(min(_CALM_EVERY, max(0.0, self._ends - time.monotonic())))
                await self._measure()
            await asyncio.gather(weather, *clients)
            await stored_tags(f"http://127.0.0.1:{self._registry_port}")
        log = (self._folder / "nixfront.log").read_text(errors="replace")
        traces = re.findall(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)*.*", log)
        self.report.wrong += [f"in the log: {trace[-2000:]}" for trace in dict.fromkeys(traces)][:5]

    # --- what there is ------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, object]:
        return {
            "registry": {"url": self._relay.url},
            "state": {"url": f"redis://127.0.0.1:{self._redis_port}/0", "lease_seconds": 3},
            "nix": {"store": str(self._folder / "store")},
            "packages": {"kind": "path", "path": str(self._folder / "set"), "time_to_live": 20},
            "builds": {"failure_seconds": 2, "queue": 20},
            "http": {"head_seconds": 5},
            "answers": {"seconds": 1, "most_bytes": 1 << 20},  # full soon: what grows is something else
        }

    async def _start(self, kind: str) -> None:
        folder = self._folder / kind
        folder.mkdir(exist_ok=True)
        opened = (
            stock_registry(folder, port=self._registry_port, quiet=True)
            if kind == "registry"
            else redis(folder, self._redis_port)
        )
        self._servers[kind] = await self._stack.enter_async_context(opened)

    def _write_set(self) -> None:
        text = _SET.replace("REVISION", str(self._revision)).replace("TOOLS", str(_TOOLS))
        write(self._folder / "set" / "default.nix", text)

    # --- clients ------------------------------------------------------------------------------------------

    async def _client(self) -> None:
        actions: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._pull, 50),
            (self._look, 30),
            (self._push, 8),
            (self._ask_for_nothing, 8),
            (self._leave, 8),
            (self._say_nothing, 4),
        ]
        kinds, weights = [action for action, _ in actions], [weight for _, weight in actions]
        while time.monotonic() < self._ends:
            await self._calm.wait()
            (act,) = self._chosen.choices(kinds, weights)
            try:
                await act()
            except AssertionError as error:
                self.report.wrong.append(f"{act.__name__}: {str(error)[:300]}")
            except (aiohttp.ClientError, TimeoutError, OSError):
                self.report.did["broken off"] += 1
            await asyncio.sleep(self._chosen.uniform(0, 0.2))

    def _name(self) -> str:
        count = self._chosen.choice((1, 1, 2, 3))
        # Some are asked for far more often than others.
        numbers = {int(self._chosen.triangular(0, _TOOLS, 0)) for _ in range(count)}
        return "/".join(f"tool{number}" for number in sorted(numbers))

    async def _pull(self) -> None:
        """An image, whole and validated; where the weather spoils it, after a while again."""
        name = self._name()
        told = ""
        for attempt in range(_TRIES):
            try:
                status, told = await self._status(name)
                if status == 200:
                    await validate(self._front.url, name, "latest")
                    self.report.did["pulled"] += 1
                    return
                assert status in _HARMLESS, f"{name} was answered {status} {told}"
            except (AssertionError, aiohttp.ClientError, OSError, KeyError, ValueError) as error:
                told = str(error)[:200]
            self.report.did["pulled again"] += 1
            await asyncio.sleep(1.0 + attempt)
        raise AssertionError(f"{name} could not be pulled: {told}")

    async def _look(self) -> None:
        """A HEAD of what is there, a list of tags."""
        name = self._name()
        async with aiohttp.ClientSession(self._front.url) as session:
            for method, path in (("HEAD", f"/v2/{name}/manifests/latest"), ("GET", f"/v2/{name}/tags/list")):
                async with session.request(method, path) as answer:
                    assert answer.status == 200 or answer.status in _HARMLESS, (
                        f"{path} was answered {answer.status}"
                    )
        self.report.did["looked"] += 1

    async def _push(self) -> None:
        """A person's own image, which is there then, and is deleted."""
        name = f"pushed/by{self._chosen.randrange(6)}-{self._chosen.randrange(1000)}"
        try:
            digest = await handmade.push(self._front.url, name, "v1", _MADE)
        except AssertionError:  # the weather
            return
        async with aiohttp.ClientSession(self._front.url) as session:
            async with session.get(
                f"/v2/{name}/manifests/v1", headers={"Accept": _MADE.media_type}
            ) as answer:
                same = answer.headers.get("Docker-Content-Digest") == digest
                assert same or answer.status in (*_HARMLESS, 500, 502), (
                    f"{name} is another image than was pushed"
                )
            async with session.delete(f"/v2/{name}/manifests/{digest}"):
                pass
        self.report.did["pushed"] += 1

    async def _ask_for_nothing(self) -> None:
        name = self._chosen.choice(("no-such-tool", "broken", "tool1/no-such", "tool1--00"))
        status, _ = await self._status(name)
        assert status in _HARMLESS, f"{name} was answered {status}"
        self.report.did["refused"] += 1

    async def _leave(self) -> None:
        """A client that goes away in the middle."""
        name = self._chosen.choice((self._name(), "slow"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._chosen.uniform(0.01, 0.5)):
                await self._status(name)
        self.report.did["left"] += 1

    async def _say_nothing(self) -> None:
        host, _, port = self._front.host.partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v2/ HTTP/1.1\r\nX: ")
        await asyncio.sleep(self._chosen.uniform(0, 8))
        writer.close()
        self.report.did["said nothing"] += 1

    async def _status(self, name: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)) as session,
            session.get(f"{self._front.url}/v2/{name}/manifests/latest") as answer,
        ):
            await answer.read()
            return answer.status, answer.reason or ""

    # --- weather ------------------------------------------------------------------------------------------

    async def _weather(self) -> None:
        kinds: list[Callable[[], Awaitable[None]]] = [
            self._errors,
            self._cuts,
            self._delays,
            self._registry_dies,
            self._redis_dies,
            self._garbage,
            self._prune,
            self._set_changes,
        ]
        while time.monotonic() < self._ends:
            await asyncio.sleep(self._chosen.uniform(3, 10))
            await self._calm.wait()
            kind = self._chosen.choice(kinds)
            self.report.weather[kind.__name__.strip("_")] += 1
            await kind()

    async def _storm(self, *rules: Rule, seconds: float) -> None:
        self._relay.break_by(*rules)
        await asyncio.sleep(seconds)
        self._relay.heal()

    async def _errors(self) -> None:
        await self._storm(
            *(Rule(method, "/blobs/", Status(500), times=_ALWAYS) for method in ("POST", "PUT", "PATCH")),
            seconds=2,
        )

    async def _cuts(self) -> None:
        await self._storm(
            *(
                Rule(method, "/", Cut(self._chosen.randrange(2000)), times=_ALWAYS)
                for method in ("GET", "PUT")
            ),
            seconds=1.5,
        )

    async def _delays(self) -> None:
        await self._storm(
            *(Rule(m, "/", Delay(0.3), times=_ALWAYS) for m in ("GET", "HEAD", "PUT")), seconds=4
        )

    async def _registry_dies(self) -> None:
        await self._dies("registry")

    async def _redis_dies(self) -> None:
        await self._dies("redis")

    async def _dies(self, kind: str) -> None:
        pid = self._servers[kind].process.pid
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC240 - no disk
            await asyncio.sleep(0.05)
        await asyncio.sleep(self._chosen.uniform(0.2, 3))
        await self._start(kind)

    async def _garbage(self) -> None:
        await run(("nix-store", "--gc"), env={**os.environ, "NIX_REMOTE": str(self._folder / "store")})

    async def _prune(self) -> None:
        environment = {
            **os.environ,
            "NIXFRONT_REGISTRY_URL": f"http://127.0.0.1:{self._registry_port}",
            "NIXFRONT_STATE_URL": f"redis://127.0.0.1:{self._redis_port}/0",
            "NIXFRONT_DATA_DIR": str(self._folder / "prune"),
        }
        await run((*FROM_CHECKOUT, "prune", "--days", "0.0005", "--yes"), env=environment)

    async def _set_changes(self) -> None:
        self._revision += 1
        self._write_set()

    # --- measuring ----------------------------------------------------------------------------------------

    async def _measure(self) -> None:
        """Let all come to rest, and see what is left."""
        self._calm.clear()
        try:
            for _ in range(120):
                await asyncio.sleep(0.5)
                counted = await plain_counts(self._front.url)
                if counted.get("nixfront_builds_running", 1.0) == 0 and not self._children():
                    break
            await asyncio.sleep(6)  # those who say nothing are cut off by then
            counted = await plain_counts(self._front.url)
            self.report.samples.append(
                Sample(
                    minute=round((time.monotonic() - self._began) / 60, 1),
                    memory=int(counted["process_resident_memory_bytes"]),
                    descriptors=int(counted["process_open_fds"]),
                    tasks=int(counted["nixfront_tasks"]),
                    processes=len(self._children()),
                )
            )
            sys.stderr.write(
                f"{self.report.samples[-1]} {dict(self.report.did)} wrong={len(self.report.wrong)}\n"
            )
        finally:
            self._calm.set()

    def _children(self) -> list[int]:
        """The processes that nixfront has started."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == self._front.process.pid:
                    found.append(int(process.name))
        return found


@contextlib.asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    yield folder
    await run(("chmod", "-R", "u+w", str(folder)))
    await run(("rm", "-rf", str(folder)))


async def _main(minutes: float, seed: int) -> Report:
    program("nix-store", "nix")
    os.environ["NIX_CONFIG"] = "substituters =\nsandbox = true\nextra-sandbox-paths = /bin /usr /lib /lib64\n"
    async with _folder() as folder:
        soak = Soak(folder, seed, minutes)
        await soak.run()
        return soak.report


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report = asyncio.run(_main(arguments.minutes, arguments.seed))
    grown = report.grown()
    document = {**vars(report), "samples": [asdict(sample) for sample in report.samples], "grown": grown}
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 1 if report.wrong or grown else 0


if __name__ == "__main__":
    raise SystemExit(main())
