# An attribute path as a client typed it -> the attribute of the set that it means.
#
# Registry names are lowercase, attributes are not: at every level an exact match comes first, then the one
# attribute that differs only in case; a part that starts with a digit also finds the attribute with an underscore
# before it (`7zz` is `_7zz`). Where two fit, the result names both.
packages: { typed, path }:
let
  upper = [ "A" "B" "C" "D" "E" "F" "G" "H" "I" "J" "K" "L" "M" "N" "O" "P" "Q" "R" "S" "T" "U" "V" "W" "X" "Y" "Z" ];
  lower = [ "a" "b" "c" "d" "e" "f" "g" "h" "i" "j" "k" "l" "m" "n" "o" "p" "q" "r" "s" "t" "u" "v" "w" "x" "y" "z" ];
  toLower = builtins.replaceStrings upper lower;

  # Attributes of `value` that `part` may mean, best kind of match only.
  matches = value: part:
    let
      startsWithDigit = builtins.match "[0-9].*" part != null;
      spellings = [ part ] ++ (if startsWithDigit then [ "_${part}" ] else [ ]);
      exact = builtins.filter (name: value ? ${name}) spellings;
      folded = map toLower spellings;
    in
    if exact != [ ] then [ (builtins.head exact) ]
    else builtins.filter (name: builtins.elem (toLower name) folded) (builtins.attrNames value);

  descend = value: done: rest:
    let
      part = builtins.head rest;
      at = builtins.concatStringsSep "." done;
      names = matches value part;
      name = builtins.head names;
      problem = kind: names: { inherit kind typed at part names; };
    in
    if rest == [ ] then { kind = "attribute"; inherit typed value; attribute = at; }
    else if !builtins.isAttrs value then problem "missing" [ ]
    else if names == [ ] then problem "missing" (builtins.attrNames value)
    else if builtins.length names > 1 then problem "ambiguous" names
    else descend value.${name} (done ++ [ name ]) (builtins.tail rest);
in
descend packages [ ] path
