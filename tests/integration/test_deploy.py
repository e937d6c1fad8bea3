"""The files of deploy/, each used by the program that it is for."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest
import redis.asyncio
import redis.exceptions
import yaml

from proxy import settings
from tests.support import chart
from tests.support.front import Front
from tests.support.guarded import htpasswd_registry
from tests.support.processes import Running, free_port, program, run, serving, succeed, write
from tests.support.servers import Server
from tests.support.validate import validate

Start = Callable[..., AbstractAsyncContextManager[Front]]
DEPLOY = Path(__file__).parents[2] / "deploy"


@contextlib.asynccontextmanager
async def answering(argv: tuple[str, ...], host: str, log: Path) -> AsyncIterator[Running]:
    """A server that answers anything at all at this address."""

    async def ready() -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with aiohttp.ClientSession() as session, session.get(f"http://{host}/v2/"):
                return True
        return False

    async with serving(argv, log=log, ready=ready) as process:
        yield process


def nginx(folder: Path, host: str, behind: str) -> tuple[str, ...]:
    """The sample in a configuration of its own: another address, no certificate, `behind` as nixfront."""
    text = (DEPLOY / "front/nginx.conf").read_text()
    text = text.replace("listen 443 ssl;", f"listen {host};").replace(
        "server 127.0.0.1:8080;", f"server {behind};"
    )
    text = re.sub(r"\n\s*ssl_certificate(_key)? [^;]*;", "", text)
    write(folder / "site.conf", text)
    whole = f"""daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
        events {{}} http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
        fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; include {folder}/site.conf; }}"""
    return (program("nginx"), "-e", "stderr", "-c", str(write(folder / "nginx.conf", whole)))


async def test_nginx_in_front_of_a_slow_build(start: Start, registry: Server, tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    held = {"hops": 0, "patience": 60}  # no redirects: the answer comes when the image is there
    everybody = {"networks": ("127.0.0.0/8",)}
    async with start(
        registry.url, builds=held, http={"trusted_proxies": ("127.0.0.1",)}, page=everybody
    ) as front:
        argv = await asyncio.to_thread(nginx, tmp_path / "nginx", host, front.url.removeprefix("http://"))
        async with answering(argv, host, tmp_path / "nginx.log"):
            image = await validate(f"http://{host}", "slow", "latest", has_documents=True)
            through = Front(f"http://{host}", [], tmp_path)
            # What a client pushes comes back to the name that the client knows.
            begun = await through.get("/v2/pushed/blobs/uploads/", "POST")
            page = await through.get("/")
            named = await through.get("/v2/")

    assert image.digest
    assert begun[0] == 202
    assert host in begun[1]["Location"] or begun[1]["Location"].startswith("/")
    assert f"docker run --rm -it {host}/shell/git" in page[2].decode()
    identity = {name.lower(): value for name, value in named[1].items()}["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", identity), "nginx's own id is ours too"


def sample_settings(sample: str, folder: Path) -> tuple[settings.Settings, str, str]:
    """The settings of a sample, its namespace and the host of its ingress; the last two are empty for Compose."""
    if sample == "compose":
        services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
        return settings.load(None, services["nixfront"]["environment"]), "", ""
    if sample == "helm":
        files = chart.render(DEPLOY / "helm/nixfront", "images", ingress={"host": "pull.example.net"})
        (settings_map,) = files["settings.yaml"]
        (ingress,) = files["ingress.yaml"]
        file = write(folder / "nixfront.yml", settings_map["data"]["nixfront.yml"])
        return settings.load(file, {}), "images", ingress["spec"]["rules"][0]["host"]
    ingress = yaml.safe_load((DEPLOY / "kubernetes/ingress.yaml").read_text())
    namespace = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["namespace"]
    chosen = settings.load(DEPLOY / "kubernetes/nixfront.yml", {})
    return chosen, namespace, ingress["spec"]["rules"][0]["host"]


@pytest.mark.parametrize("sample", ["compose", "kubernetes", "helm"])
async def test_a_sample_answers_under_the_names_that_its_network_gives_it(
    start: Start, registry: Server, tmp_path: Path, sample: str
) -> None:
    chosen, namespace, ingress = await asyncio.to_thread(sample_settings, sample, tmp_path)
    resources = await asyncio.to_thread((DEPLOY / "kubernetes/nixfront.yaml").read_text)
    names, strangers = ["nixfront"], ["attacker.example", "nixfront.attacker.example"]
    if namespace:
        domains = ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
        services = [e["metadata"]["name"] for e in yaml.safe_load_all(resources) if e["kind"] == "Service"]
        assert services == ["nixfront", "nixfront-pods"]
        names = [f"{name}{domain}" for name in ("nixfront", "nixfront-0.nixfront-pods") for domain in domains]
        strangers += [f"nixfront.{namespace}.svc.attacker.example", f"nixfront.other-{namespace}.svc"]
    async with start(registry.url, http={"hosts": chosen.http.hosts}) as front:
        counts = {name: (await front.get("/metrics", headers={"Host": f"{name}:9090"}))[0] for name in names}
        refused = {name: (await front.get("/metrics", headers={"Host": name}))[0] for name in strangers}
        browser = {"Host": ingress or names[0], "Sec-Fetch-Site": "none"}
        pulled = await front.get("/v2/hello/manifests/latest", headers=browser)

    assert counts == dict.fromkeys(names, 200)
    assert refused == dict.fromkeys(strangers, 403)
    assert pulled[0] == 200, "a browser pulls under the name of the ingress"


async def test_caddy_accepts_its_sample(tmp_path: Path) -> None:
    text = await asyncio.to_thread((DEPLOY / "front/Caddyfile").read_text)
    sample = await asyncio.to_thread(write, tmp_path / "Caddyfile", text)

    adapted = json.loads(await succeed((program("caddy"), "adapt", "--config", str(sample))))

    handler = json.dumps(adapted)
    assert '"dial": "127.0.0.1:8080"' in handler
    assert '"flush_interval": -1' in handler


async def test_caddy_in_front_of_a_slow_build(start: Start, registry: Server, tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    async with start(registry.url, builds={"hops": 0, "patience": 60}) as front:
        text = await asyncio.to_thread((DEPLOY / "front/Caddyfile").read_text)
        text = text.replace("images.example.org {", f"http://{host} {{", 1).replace(
            "127.0.0.1:8080", front.url.removeprefix("http://")
        )
        file = await asyncio.to_thread(write, tmp_path / "Caddyfile", "{\n\tadmin off\n}\n" + text)
        async with answering(
            (program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"),
            host,
            tmp_path / "caddy.log",
        ):
            image = await validate(f"http://{host}", "slow", "latest", has_documents=True)

    assert image.digest


async def test_the_unit_is_sound_and_confined(tmp_path: Path) -> None:
    text = await asyncio.to_thread((DEPLOY / "systemd/nixfront.service").read_text)
    text = text.replace("/opt/nixfront/bin/nixfront", shutil.which("true") or "/bin/true")
    text = text.replace("User=nixfront\nGroup=nixfront", "User=daemon\nGroup=daemon")
    unit = await asyncio.to_thread(write, tmp_path / "nixfront.service", text)

    verified = await run(("systemd-analyze", "verify", "--man=no", str(unit)))
    exposed = await succeed(
        ("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=25", str(unit))
    )

    assert verified.returncode == 0, verified.output
    assert "nixfront.service:" not in verified.stderr, "no warning about a line of ours"
    assert re.search(r"exposure level.*: [01]\.\d", exposed), exposed[-200:]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an ordinary user reaches too, as those of pytest are for its own user alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def test_the_init_container_fills_a_volume(open_folder: Path) -> None:
    """Its script, with this test's folders for those of a pod, as an ordinary user if root runs the tests."""
    text = await asyncio.to_thread((DEPLOY / "kubernetes/nixfront.yaml").read_text)
    (shell, options, script) = next(yaml.safe_load_all(text))["spec"]["template"]["spec"]["initContainers"][
        0
    ]["command"]
    volume, image = open_folder / "volume", open_folder / "image"
    name = f"{'a' * 32}-program"
    path, copy = f"/nix/store/{name}", volume / "store" / name
    await asyncio.to_thread(write, image / "store" / name / "bin/program", "echo here\n")
    await asyncio.to_thread(write, volume / "store" / f"{name}.new/half", "of an earlier try")
    await succeed(("chmod", "-R", "a-w", str(image / "store" / name)))
    digest = (await succeed(("nix-hash", "--type", "sha256", str(image / "store" / name)))).strip()
    size = (await succeed(("sh", "-c", f"nix-store --dump {image}/store/{name} | wc -c"))).strip()
    await asyncio.to_thread(write, image / "registration", f"{path}\n{digest}\n{size}\n\n0\n")
    for folder in ("/nix/store", "/registration"):
        assert folder in script
        script = script.replace(folder, f"{image}/{folder.rpartition('/')[2]}")
    argv: tuple[str, ...] = (shell, options, script.replace("/volume", str(volume)))
    if os.geteuid() == 0:
        # No passwd has this number, as with those that OpenShift chooses.
        await succeed(("chown", "-R", "54321:54321", str(volume)))
        argv = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--no-new-privs", *argv)

    for _ in range(2):  # a pod that starts again
        done = await run(argv, env={**os.environ, "HOME": str(volume), "USER": "", "NIX_CONFIG": ""})
        assert done.returncode == 0, done.output

    store = f"local?real={volume}/store&state={volume}/var/nix&log={volume}/var/log/nix"
    assert (copy / "bin/program").read_text() == "echo here\n"
    assert [each.name for each in (volume / "store").iterdir() if each.name[0] != "."] == [name]
    assert (volume / "var/nix/gcroots/image" / name).is_symlink()
    assert digest in await succeed(("nix-store", "--store", store, "--dump-db"))
    await succeed(("nix-store", "--store", store, "--verify", "--check-contents"))


async def test_the_probe_of_the_registry_needs_no_login(tmp_path: Path) -> None:
    text = await asyncio.to_thread((DEPLOY / "kubernetes/registry.yaml").read_text)
    (pod,) = (
        each["spec"]["template"]["spec"] for each in yaml.safe_load_all(text) if each["kind"] == "Deployment"
    )
    (container,) = pod["containers"]
    path = container["readinessProbe"]["httpGet"]["path"]
    async with htpasswd_registry(tmp_path) as server, aiohttp.ClientSession(server.url) as session:
        async with session.get(path) as probe:
            assert probe.status == 200
        async with session.get("/v2/") as answer:
            assert answer.status == 401


async def test_the_password_of_redis_is_in_no_list_of_processes(tmp_path: Path) -> None:
    text = await asyncio.to_thread((DEPLOY / "kubernetes/redis.yaml").read_text)
    pod = next(yaml.safe_load_all(text))["spec"]["template"]["spec"]
    (shell, options, script) = pod["containers"][0]["command"]
    port = free_port()
    assert "dir /data" in script
    script = script.replace("dir /data", f"dir {tmp_path}").replace(
        "redis-server -", f"redis-server - --port {port}"
    )
    url = f"redis://:between%20us@127.0.0.1:{port}/0"

    async def ready() -> bool:
        with contextlib.suppress(OSError):
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
            return True
        return False

    environment = {**os.environ, "PASSWORD": '"between us"'}
    async with serving(
        (shell, options, script), log=tmp_path / "log", ready=ready, env=environment
    ) as server:
        client = redis.asyncio.from_url(url)
        stranger = redis.asyncio.from_url(f"redis://127.0.0.1:{port}/0")
        assert await client.set("key", "value")
        with pytest.raises(redis.exceptions.AuthenticationError):
            await stranger.set("key", "value")
        await client.aclose()
        await stranger.aclose()
        line = await asyncio.to_thread(Path(f"/proc/{server.pid}/cmdline").read_bytes)

    assert b"between" not in line


async def test_a_page_may_browse_the_sample_registry(tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    sample = yaml.safe_load(await asyncio.to_thread((DEPLOY / "registry/config.yml").read_text))
    sample["http"]["addr"] = host
    sample["storage"]["filesystem"]["rootdirectory"] = str(tmp_path / "images")
    config = await asyncio.to_thread(write, tmp_path / "config.yml", yaml.safe_dump(sample))
    argv = (program("docker-registry", "registry"), "serve", str(config))
    async with answering(argv, host, tmp_path / "registry.log"), aiohttp.ClientSession() as session:
        asked = {"Origin": "http://page.example", "Access-Control-Request-Method": "GET"}
        async with session.get(f"http://{host}/v2/_catalog?n=1000", headers=asked) as answer:
            headers = answer.headers
            assert answer.status == 200
        async with session.delete(f"http://{host}/v2/a/manifests/sha256:{'0' * 64}") as deleted:
            assert deleted.status == 404, "405 if deletes were off"

    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Access-Control-Expose-Headers"] == "Docker-Content-Digest"
    assert "Authorization" in headers.getall("Access-Control-Allow-Headers")


STAND_IN = """
  let
    lib = rec {
      mkOption = option: option // { _option = true; };
      mkEnableOption = text: mkOption { default = false; description = text; };
      mkIf = condition: value: if condition then value else { };
      optional = condition: value: if condition then [ value ] else [ ];
      optionalAttrs = condition: value: if condition then value else { };
      toInt = builtins.fromJSON;
      last = list: builtins.elemAt list (builtins.length list - 1);
      splitString = at: text: builtins.filter builtins.isString (builtins.split at text);
      makeBinPath = packages: builtins.concatStringsSep ":" (map (p: "${p}/bin") packages);
      types = { package = "package"; attrs = "attrs"; str = "str"; bool = "bool"; nullOr = type: "null or ${type}"; };
      licenses.mit = "MIT";
      platforms.linux = [ "x86_64-linux" ];
    };
    python3Packages = builtins.listToAttrs (map (name: { inherit name; value = "/python/${name}"; }) NAMES)
      // { buildPythonApplication = arguments: arguments; };
    pkgs = {
      writeText = name: text: "/store/${name}=${text}";
      callPackage = file: given: import file ({
        inherit lib python3Packages; makeWrapper = "wrap"; nix = "/nix"; git = "/git"; util-linux = "/util"; docker-distribution = "/reg";
      } // given);
    };
    module = import MODULE;
    made = module { inherit lib pkgs; config.services.nixfront = {
      enable = true; package = "/nixfront"; openFirewall = true; environmentFile = "/secrets";
      settings = { http.addr = "0.0.0.0:8080"; packages.kind = "nixpkgs"; };
    }; };
    package = pkgs.callPackage PACKAGE { };
  in {
    options = builtins.attrNames made.options.services.nixfront;
    service = made.config.systemd.services.nixfront;
    ports = made.config.networking.firewall.allowedTCPPorts;
    trusted = made.config.nix.settings.trusted-users;
    package = { inherit (package) version dependencies makeWrapperArgs; };
  }
"""


async def test_the_nixos_module_on_a_stand_in(tmp_path: Path) -> None:
    names = ["aiohttp", "setuptools"]
    text = await asyncio.to_thread((DEPLOY / "nixos/package.nix").read_text)
    listed = re.search(r"python3Packages; \[([^]]*)\]", text)
    assert listed is not None
    names = sorted({"setuptools", *listed[1].split()})
    expression = (
        STAND_IN.replace("NAMES", "[ " + " ".join(f'"{name}"' for name in names) + " ]")
        .replace("MODULE", str(DEPLOY / "nixos/module.nix"))
        .replace("PACKAGE", str(DEPLOY / "nixos/package.nix"))
    )
    os.environ.pop("NIX_PATH", None)

    told = json.loads(
        await succeed(("nix-instantiate", "--eval", "--strict", "--json", "--expr", expression))
    )

    start = told["service"]["serviceConfig"]["ExecStart"]
    assert told["options"] == ["enable", "environmentFile", "openFirewall", "package", "settings"]
    assert start.startswith("/nixfront/bin/nixfront serve --config /store/nixfront.yml=")
    assert json.loads(start.partition("=")[2]) == {
        "http": {"addr": "0.0.0.0:8080"},
        "packages": {"kind": "nixpkgs"},
    }
    assert told["service"]["serviceConfig"]["EnvironmentFile"] == "/secrets"
    assert told["ports"] == [8080]
    assert told["trusted"] == ["nixfront"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", told["package"]["version"])


@pytest.mark.parametrize("name", ["module.nix", "package.nix"])
async def test_the_nix_files_parse(name: str) -> None:
    await succeed(("nix-instantiate", "--parse", str(DEPLOY / "nixos" / name)))


async def test_the_examples_of_package_sets_parse() -> None:
    blocks = [
        block
        for page in sorted((DEPLOY.parent / "config").glob("*.md"))
        for block in re.findall(r"```nix\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    for block in blocks:
        await succeed(("nix-instantiate", "--parse", "--expr", block))
    assert blocks
