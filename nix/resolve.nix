# An attribute path as a client typed it -> the attribute of the set that it means.
#
# Registry names are lowercase, attributes are not: at every level an exact match comes first, then the one
# attribute that differs only in case; a part that starts with a digit also finds the attribute with an underscore
# before it (`7zz` is `_7zz`). Where two fit, the result names both.
#
# `above` holds the derivations on the way, [ { attribute; value; } ], outermost first: the policy judges them too. All paths
# of one set share `tree`, so many wrong names fold the case of a large set's attributes once.
packages:
let
  upper = [ "A" "B" "C" "D" "E" "F" "G" "H" "I" "J" "K" "L" "M" "N" "O" "P" "Q" "R" "S" "T" "U" "V" "W" "X" "Y" "Z" ];
  lower = [ "a" "b" "c" "d" "e" "f" "g" "h" "i" "j" "k" "l" "m" "n" "o" "p" "q" "r" "s" "t" "u" "v" "w" "x" "y" "z" ];
  toLower = builtins.replaceStrings upper lower;

  # A value, its attributes by their names in lowercase, and the same for each attribute. Nix evaluates what is used.
  node = value: {
    inherit value;
    folded = builtins.groupBy toLower (builtins.attrNames value);
    inner = builtins.mapAttrs (_: node) value;
  };
  tree = node packages;

  # An attribute `type` may refuse to be evaluated; then Nix sees no derivation either.
  isDerivation = value: (builtins.tryEval (value.type or null == "derivation")).value;

  # Attributes of a node that `part` may mean, best kind of match only.
  matches = { value, folded, ... }: part:
    let
      startsWithDigit = builtins.match "[0-9].*" part != null;
      spellings = [ part ] ++ (if startsWithDigit then [ "_${part}" ] else [ ]);
      exact = builtins.filter (name: value ? ${name}) spellings;
    in
    if exact != [ ] then [ (builtins.head exact) ]
    else builtins.sort builtins.lessThan (builtins.concatMap (name: folded.${toLower name} or [ ]) spellings);

  descend = typed: here: above: done: rest:
    let
      inherit (here) value;
      part = builtins.head rest;
      at = builtins.concatStringsSep "." done;
      names = matches here part;
      name = builtins.head names;
      below = if done != [ ] && isDerivation value then above ++ [ { attribute = at; inherit value; } ] else above;
      problem = kind: names: { inherit kind typed at part names; depth = builtins.length done; };
    in
    if rest == [ ] then { kind = "attribute"; inherit typed value above; attribute = at; }
    else if !builtins.isAttrs value then problem "missing" [ ]
    else if names == [ ] then problem "missing" (builtins.attrNames value)
    else if builtins.length names > 1 then problem "ambiguous" names
    else descend typed here.inner.${name} below (done ++ [ name ]) (builtins.tail rest);
in
{ typed, path }: descend typed tree [ ] [ ] path
