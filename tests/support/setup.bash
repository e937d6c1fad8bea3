# What tests/run and tests/bench/run get before they start: to be sourced, in the root of the checkout.
#
# On Debian, root gets packages from the archive; everybody gets a venv in .venv with nixfront installed from this
# checkout. The host's services and settings stay as they are.

# PROGRAM=PACKAGE, of Debian 12. The stock registry is not among them: its package would start a service.
readonly for_unit=(man=man-db)
readonly for_integration=(nix-store=nix-bin git=git umoci=umoci redis-server=redis-server
    qemu-x86_64=qemu-user qemu-aarch64=qemu-user nginx=nginx-light caddy=caddy systemd-analyze=systemd)
readonly for_e2e=(docker=docker.io dockerd=docker.io containerd=containerd ctr=containerd runc=runc iptables=iptables
    skopeo=skopeo podman=podman curl=curl chromium=chromium node=nodejs lua5.4=lua5.4
    ruby3.1=ruby3.1 R=r-base-core)
readonly policy=/usr/sbin/policy-rc.d
readonly policy_mark='# nixfront tests/run: no service starts while it adds packages; safe to delete'
readonly python_test='import ensurepip, sqlite3, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))'

say() { printf '== %s\n' "$*"; }
fail() { say "$*" >&2 && exit 1; }

can_install() { [[ $EUID == 0 ]] && type -P apt-get >/dev/null; }

leave() {
    if [[ -f $policy ]] && grep -qxF "$policy_mark" "$policy"; then rm -f -- "$policy"; fi
    rm -rf -- "$scratch"
}

update_lists() {
    [[ -z ${lists_fresh-} ]] || return 0
    lists_fresh=yes
    # One dead source out of many is no reason to stop: if it mattered, the next step fails and says so.
    apt-get -qq update || say "not all package lists could be updated, going on"
}

add_packages() {
    say "apt-get install $*"
    update_lists
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >"$policy"
        chmod 755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 install \
        --no-install-recommends --no-remove "$@" >"$scratch/apt.log" 2>&1 || fail "$(tail -n 20 "$scratch/apt.log")"
    hash -r
}

# get_programs PROGRAM=PACKAGE...: status 1 if one is missing and cannot be got.
get_programs() {
    local pair missing=()
    for pair in "$@"; do
        type -P "${pair%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u) # a package may hold several of the programs
    if can_install; then
        add_packages "${missing[@]}"
    else
        say "missing here: ${missing[*]}"
        return 1
    fi
}

# The program of Debian's docker-registry, unpacked beside the venv's programs and never installed.
get_registry() {
    if type -P docker-registry >/dev/null || type -P registry >/dev/null; then return; fi
    type -P apt-get >/dev/null || { say "missing here: the stock registry (docker-registry)" && return 1; }
    if can_install; then update_lists; fi
    say "unpacking docker-registry into .venv"
    (cd -- "$scratch" && apt-get -qq -o APT::Sandbox::User=root download docker-registry 2>&1) &&
        dpkg-deb -x "$scratch"/docker-registry_*.deb .venv/registry &&
        link_registry
}

link_registry() { ln -sf -- ../registry/usr/bin/docker-registry .venv/bin/docker-registry; }

# get_newer NAME PACKAGE PROGRAM...: the next Debian's programs, in .venv/newer-NAME.
get_newer() {
    [[ ! -e .venv/newer-$1/complete ]] || return 0
    say "unpacking the next Debian's $2 into .venv"
    tests/support/newer ".venv/newer-$1" "${@:2}"
}

# Not that of .venv, which may be active, as .venv is made anew.
find_python() {
    for python in python3 python3.{11..19} /usr/bin/python3; do
        python=$(PATH=${PATH//"$PWD/.venv/bin:"/} type -P "$python") || continue
        if "$python" -I -c "$python_test" 2>/dev/null; then return; fi
    done
    can_install || fail "no Python >= 3.11 with venv here"
    add_packages python3 python3-venv
    python=/usr/bin/python3
    "$python" -I -c "$python_test" || fail "this system's python3 is older than 3.11"
}

# nixfront is installed as a wheel, not in place: what the tests start is what a user would start.
install_nixfront() {
    local requirements sources
    find_python
    requirements=$({ "$python" -I -VV && sed -n '/^install_requires/,/^\[options.package_data/p' setup.cfg && pwd; } | sha256sum)
    sources=$(find pyproject.toml setup.cfg proxy nix config -name __pycache__ -prune -o -type f -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
    if [[ $(cat .venv/.requirements 2>/dev/null) == "$requirements" ]]; then
        [[ $(cat .venv/.sources 2>/dev/null) != "$sources" ]] || return 0
        say "installing nixfront, as its sources changed"
        copy_sources
        .venv/bin/pip -q install --force-reinstall --no-deps "$scratch/source"
    else
        say "making .venv"
        rm -rf -- .venv/{.requirements,bin,include,lib,lib64,pyvenv.cfg} # the registry and the newer programs stay
        "$python" -m venv .venv
        if [[ -e .venv/registry ]]; then link_registry; fi
        copy_sources
        .venv/bin/pip -q install "$scratch/source[test]"
        printf '%s\n' "$requirements" >.venv/.requirements
    fi
    printf '%s\n' "$sources" >.venv/.sources
}

# The build leaves files beside the sources, and would ship those that an earlier one left: it gets a copy.
copy_sources() {
    local file
    mkdir -- "$scratch/source"
    for file in setup.cfg pyproject.toml README.md LICENSE proxy nix config; do
        if [[ -e $file ]]; then cp -r -- "$file" "$scratch/source/"; fi
    done
}

# prepare: a scratch folder that goes away by itself, nixfront in .venv, and its programs in front of PATH.
prepare() {
    scratch=$(mktemp -d)
    trap leave EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    install_nixfront
    PATH=$PWD/.venv/bin:$PATH
}
