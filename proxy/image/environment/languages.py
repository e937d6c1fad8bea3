"""The languages whose interpreters find libraries by a variable: a row each, from the setup hooks of nixpkgs.

A setup hook of nixpkgs sets the variable in a build or a `nix-shell`. An image has no hooks, so we set the variable there.
"""

from dataclasses import dataclass

#: A folder inside a store path, and a regular expression of the names in it whose group is a version. An empty folder
#: stands for the name of the store path itself.
Sign = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SearchPath:
    """A variable. Its value has `patterns` for each `folder` of a library; `{}` in `folder` is the interpreter's version."""

    variable: str
    folder: str
    patterns: tuple[str, ...] = ("",)
    separator: str = ":"
    start: str = ""


@dataclass(frozen=True, slots=True)
class Language:
    """A row. `program`: the interpreter in `bin`, a regular expression.

    `interpreters` and `libraries` say where each of them shows its version. `together`: one value of the variable serves
    several versions. `guard`: the value leads to a file of ours as well (`libraries.GUARD`).
    """

    name: str
    program: str
    paths: tuple[SearchPath, ...]
    interpreters: tuple[Sign, ...] = ()
    libraries: tuple[Sign, ...] = ()
    together: bool = False
    guard: bool = False


LANGUAGES = (
    # pkgs/development/interpreters/python/sitecustomize.py: NIX_PYTHONPATH, with `.pth` files; setup-hook.sh: the folder
    Language(
        "Python",
        r"(?:python|pypy)(?:\d(?:\.\d+)?)?",
        (SearchPath("NIX_PYTHONPATH", "lib/{}/site-packages"),),
        interpreters=(("bin", r"((?:python|pypy)\d\.\d+)"),),
        libraries=(("lib", r"((?:python|pypy)\d\.\d+)"),),
        together=True,
        guard=True,
    ),
    # pkgs/development/interpreters/perl/setup-hook.sh; perl itself looks for its version below the folder
    Language(
        "Perl",
        r"perl",
        (SearchPath("PERL5LIB", "lib/perl5/site_perl"),),
        interpreters=(("bin", r"perl(5\.\d+\.\d+)"), ("lib/perl5", r"(5\.\d+\.\d+)")),
        libraries=(("lib/perl5/site_perl", r"(5\.\d+\.\d+)"),),
        together=True,
    ),
    # pkgs/development/interpreters/ruby/default.nix: its setup-hook, and `gemPath`; rubygems adds its own folder
    Language(
        "Ruby",
        r"ruby",
        (SearchPath("GEM_PATH", "lib/ruby/gems/{}"),),
        interpreters=(("lib/ruby", r"(\d+\.\d+\.\d+)"), ("lib/ruby/gems", r"(\d+\.\d+\.\d+)")),
        libraries=(("lib/ruby/gems", r"(\d+\.\d+\.\d+)"),),
    ),
    # pkgs/development/web/nodejs/setup-hook.sh
    Language("Node", r"node", (SearchPath("NODE_PATH", "lib/node_modules"),)),
    # pkgs/development/interpreters/lua-5: default.nix (the patterns), utils.sh (`;;` stands for Lua's own places). LuaJIT is 5.1.
    Language(
        "Lua",
        r"lua(?:5\.\d|jit)?",
        (
            SearchPath("LUA_PATH", "share/lua/{}", ("/?.lua", "/?/init.lua"), ";", ";;"),
            SearchPath("LUA_CPATH", "lib/lua/{}", ("/?.so",), ";", ";;"),
        ),
        interpreters=(("bin", r"lua(5\.\d)"), ("", r"lua-(\d\.\d).*"), ("share/lua", r"(5\.\d)")),
        libraries=(("share/lua", r"(5\.\d)"), ("lib/lua", r"(5\.\d)")),
    ),
    # pkgs/applications/science/math/R/setup-hook.sh
    Language("R", r"R", (SearchPath("R_LIBS_SITE", "library"),)),
)
