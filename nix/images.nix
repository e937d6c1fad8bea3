# A named image of the operator's file: its definition, checked, with its packages resolved and described.
#
#   nix-instantiate --eval --strict --json --read-write-mode nix/images.nix --argstr request JSON
#
# request: what default.nix takes (the set whose packages the image's strings name), but `image` for `attributes`, and
#   image     name of the image, as the client typed it
#   file      absolute path of the operator's file: a set of images, or a function of { pkgs, system, ... } that yields one
#   pkgs      { expression; arguments; }: the default package set, for that function
#   set       name of the package set that the strings are about, "" for the default one
#   sets      names of all package sets that an image may choose
#   aliases   { name = attribute path; }: other names for attributes
#
# result, one of
#   { kind = "missing"; part; names; }        the file has no such image, but `names`
#   { kind = "ambiguous"; names; }            these differ only in case
#   { kind = "elsewhere"; image; set; }       the image is about another package set than this request: ask again with it
#   { kind = "wrong"; image; mistakes; }      mistakes = [ { key; problem; choices; } ]: for a wrong key, `choices` are all the right ones
#   { kind = "image"; image; packages; contents; optional; tools; ...}: the keys of the definition with their defaults, and
#     packages, optional   results as in default.nix
#     contents      the same for derivations, and { kind = "path"; path; drvPath; output; } for store paths (drvPath and output
#                   are "" where it is a plain path)
#     tools         bash and coreutils, as in default.nix, where there are extraCommands
#     env, labels   [ { name; value; } ], sorted
#     runs, commands { texts; plain; derivations = [ { drvPath; outputs; } ]; }: the texts that say what a container runs,
#                   and extraCommands; `texts` refer to derivations, `plain` to none
#
# A text may name store paths of derivations, and a path of the file's folder may be a content: evaluation writes both to
# the store and builds nothing.
{ request }:
let
  question = builtins.fromJSON request;
  resolve = import ./resolve.nix;
  policy = question.policy // { inherit (question) system; };

  packages = import ./load.nix question;
  pkgs = if question.set == "" then packages else import ./load.nix (question // question.pkgs);

  # An image is the operator's own wish: the policy bounds it, but not the lists of what clients may name.
  describe = import ./describe.nix { inherit policy; byClient = false; };
  find = resolve packages;
  byName = typed: describe (find { inherit typed; path = parts (question.aliases.${typed} or typed); });
  byValue = value: describe { kind = "attribute"; typed = value.name; attribute = value.name; inherit value; };
  package = value: if builtins.isString value then byName (plain value) else byValue value;

  parts = import ./attribute-path.nix;

  plain = builtins.unsafeDiscardStringContext;
  derivationsOf = text:
    let context = builtins.getContext text; in
    map (drvPath: { inherit drvPath; inherit (context.${drvPath}) outputs; })
      (builtins.filter (name: context.${name} ? outputs) (builtins.attrNames context));
  named = texts: {
    texts = map plain (builtins.filter builtins.hasContext texts);
    plain = builtins.filter (text: !builtins.hasContext text) texts;
    derivations = builtins.concatMap derivationsOf texts;
  };

  content = value:
    if isDerivation value then byValue value
    else
      let text = "${value}"; from = derivationsOf text; in {
        kind = "path";
        path = plain text;
        drvPath = if from == [ ] then "" else (builtins.head from).drvPath;
        output = if from == [ ] then "" else builtins.head (builtins.head from).outputs;
      };

  # --- what a definition may hold ---------------------------------------------------------------------------

  isDerivation = value: builtins.isAttrs value && value.type or null == "derivation";
  isText = builtins.isString;
  isNumber = value: builtins.isInt value && value >= 0;
  listOf = fits: value: builtins.isList value && builtins.all fits value;
  texts = { default = [ ]; is = listOf isText; what = "a list of strings"; };
  textsByName = {
    default = { };
    is = value: builtins.isAttrs value && !isDerivation value && builtins.all isText (builtins.attrValues value);
    what = "a set of strings";
  };
  text = { default = ""; is = isText; what = "a string"; };
  number = { default = 0; is = isNumber; what = "a number that is not negative"; };

  keys = {
    packages = {
      default = [ ];
      is = listOf (value: isText value || isDerivation value);
      what = "a list of attribute paths (strings) and derivations";
    };
    contents = {
      default = [ ];
      is = listOf (value: isText value || builtins.isPath value || isDerivation value);
      what = "a list of store paths (strings) and derivations";
    };
    extraCommands = text;
    uid = number;
    gid = number;
    user = text;
    cmd = texts;
    entrypoint = texts;
    env = textsByName;
    labels = textsByName;
    workdir = text;
    exposedPorts = {
      default = [ ];
      is = listOf (value: isText value || isNumber value);
      what = "a list of ports, each a number or a string like \"53/udp\"";
    };
    maxLayers = number;
    set = text;
  };

  kindOf = value: if isDerivation value then "derivation" else builtins.typeOf value;
  shown = value:
    let held = unique (map kindOf (if builtins.isList value then value else builtins.attrValues value)); in
    if (builtins.isList value || builtins.isAttrs value) && !isDerivation value && held != [ ] then
      "${kindOf value} of ${builtins.concatStringsSep ", " held}"
    else kindOf value;
  unique = builtins.foldl' (done: name: if builtins.elem name done then done else done ++ [ name ]) [ ];

  mistakesOf = definition:
    let
      names = builtins.attrNames definition;
      unknown = builtins.filter (key: !(keys ? ${key})) names;
      unfit = builtins.filter (key: keys ? ${key} && definition.${key} != null && !keys.${key}.is definition.${key}) names;
    in
    map (key: { inherit key; problem = "is no key of an image"; choices = builtins.attrNames keys; }) unknown
    ++ map
      (key: {
        inherit key;
        problem = "has to be ${keys.${key}.what}, and is a ${shown definition.${key}}";
        choices = [ ];
      })
      unfit;

  # --- the answer -------------------------------------------------------------------------------------------

  written = import (/. + question.file);
  arguments = { inherit pkgs; inherit (question) system; };
  taken = builtins.functionArgs written;
  images =
    if !builtins.isFunction written then written
    else written (if taken == { } then arguments else builtins.intersectAttrs taken arguments);
  match = resolve images { typed = question.image; path = [ question.image ]; };
  image = match.attribute;

  wrong = key: problem: { kind = "wrong"; inherit image; mistakes = [ { inherit key problem; choices = [ ]; } ]; };
  answer = definition:
    let
      value = key: default: let own = definition.${key} or null; in if own == null then default else own;
      chosen = builtins.mapAttrs (key: about: value key about.default) keys;
      pairs = set: map (name: { inherit name; value = plain set.${name}; }) (builtins.attrNames set);
      mistakes = mistakesOf definition;
    in
    if mistakes != [ ] then { kind = "wrong"; inherit image mistakes; }
    else if chosen.set != "" && !builtins.elem chosen.set question.sets then
      wrong "set" (
        "names no package set, but \"${chosen.set}\"; "
        + (if question.sets == [ ] then "there is only the default one" else "there are ${builtins.concatStringsSep ", " question.sets}")
      )
    else if chosen.set != question.set then { kind = "elsewhere"; inherit image; inherit (chosen) set; }
    else {
      kind = "image";
      inherit image;
      packages = map package chosen.packages;
      contents = map content chosen.contents;
      optional = builtins.filter (result: result.kind == "package") (map (name: byName name) question.optional);
      tools = if chosen.extraCommands == "" then [ ] else map byName [ "bash" "coreutils" ];
      runs = named (chosen.cmd ++ chosen.entrypoint ++ builtins.attrValues chosen.env ++ [ chosen.workdir ]);
      commands = named [ chosen.extraCommands ];
      env = pairs chosen.env;
      labels = pairs chosen.labels;
      extraCommands = plain chosen.extraCommands;
      inherit (chosen) uid gid user cmd entrypoint workdir exposedPorts maxLayers;
    };
in
if !builtins.isAttrs images then {
  kind = "wrong";
  image = "";
  mistakes = [ { key = ""; problem = "images.file has to yield a set of images, and yields a ${kindOf images}"; choices = [ ]; } ];
}
else if match.kind != "attribute" then { inherit (match) kind part names; }
else if !builtins.isAttrs match.value || isDerivation match.value then
  wrong "" "has to be a set that defines an image, and is a ${kindOf match.value}"
else answer match.value
