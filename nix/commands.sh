# The builder of commands.nix: bash and coreutils alone. In the environment: out, tree, modes, scriptPath.
shopt -s dotglob nullglob

refuse() {
    printf 'extraCommands: %s\n' "$1" >&2
    exit 1
}

# Mode and path of every member, on descriptor 3; then all of it is readable, as Nix has to read it.
record() {
    local number members=("$1"/*) member
    for ((number = 0; number < ${#members[@]}; number += 500)); do
        stat --printf '%a\0%n\0' -- "${members[@]:number:500}" >&3
    done
    for member in "${members[@]}"; do
        [[ ${member##*/} != .wh.* ]] || refuse "${member#./} has the name of a whiteout, which deletes files of other layers"
        if [[ -L $member ]]; then
            continue
        elif [[ -d $member ]]; then
            chmod u+rwx -- "$member"
            record "$member"
        elif [[ -f $member ]]; then
            chmod u+r -- "$member"
        else
            refuse "${member#./} is neither a file, a directory nor a symlink"
        fi
    done
}

root=$PWD/root commands=$PWD/extraCommands # the name that bash shows with an error
mkdir "$root"
cp -- "$scriptPath" "$commands"
cp -R --no-preserve=mode,ownership,timestamps -- "$tree/." "$root"
cd "$root"
chmod 755 .
while IFS=' ' read -r mode path; do
    chmod "$mode" -- "$path"
done <"$modes"

env -u tree -u modes -u out -u script -u scriptPath bash -euo pipefail "$commands"

cd "$root" || refuse "the root itself is gone"
[[ ! -e nix && ! -L nix ]] || refuse "/nix is in other layers: nothing may be put there"
mkdir "$out"
record . 3>"$out/modes"
cd /
mv -- "$root" "$out/tree"
