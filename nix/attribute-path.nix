# An attribute path as a person writes it -> its parts: `python3Packages.numpy` has two. `--2b` is `+`, as in the path of a
# repository. `proxy/core/names.py` does the same for those.
typed:
let
  unescape = part: builtins.concatStringsSep "" (map
    (piece: if builtins.isString piece then piece else builtins.fromJSON ''"\u00${builtins.head piece}"'')
    (builtins.split "--([3-6][0-9a-f]|2[1-9a-f]|7[0-9a-e])" part));
in
map unescape (builtins.filter builtins.isString (builtins.split "[.]" typed))
