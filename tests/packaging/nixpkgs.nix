# As much of nixpkgs as our own expressions use, since there is none without a network. It checks no types.
rec {
  lib = rec {
    mkOption = option: option // { isOption = true; };
    mkEnableOption = description: mkOption { default = false; };
    literalExpression = text: text;
    types = builtins.listToAttrs (map (name: { inherit name; value = name; }) [ "bool" "package" "path" "str" ])
      // { attrsOf = _: "attrsOf"; listOf = _: "listOf"; nullOr = _: "nullOr"; };
    mkIf = condition: value: if condition then value else { };
    mkMerge = builtins.foldl' merge { };
    optional = condition: value: optionals condition [ value ];
    optionals = condition: list: if condition then list else [ ];
    concatMap = builtins.concatMap;
    toInt = builtins.fromJSON;
    last = list: builtins.elemAt list (builtins.length list - 1);
    mapAttrsToList = f: set: map (name: f name set.${name}) (builtins.attrNames set);
    genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    cleanSource = path: path;
    licenses.mit = "MIT";
  };

  # Two sets as one, and two lists one behind the other.
  merge = a: b:
    if builtins.isAttrs a && builtins.isAttrs b then
      a // builtins.mapAttrs (name: value: if a ? ${name} then merge a.${name} value else value) b
    else if builtins.isList a then a ++ b
    else b;

  pkgs = {
    coreutils = "/coreutils";
    callPackage = _: _: "/package";
    formats.toml = _: { type = "toml"; generate = name: _: "/${name}"; };
  };

  # What the module `file` sets where a system says `given` of services.tvix-store.
  configured = file: given:
    let
      module = import file { inherit lib pkgs config; };
      defaults = set: if set ? isOption then set.default or null else builtins.mapAttrs (_: defaults) set;
      said = builtins.foldl' (a: b: a // b) (defaults module.options.services.tvix-store) [ given ];
      settings = merge said.settings module.config.services.tvix-store.settings;
      config.services.tvix-store = said // { inherit settings; };
    in
    module.config // { services = module.config.services // { tvix-store = { inherit settings; }; }; };

  # The package in `file`, where nixpkgs has the Python packages `names`.
  package = file: names: system:
    import file {
      inherit lib;
      stdenv = { hostPlatform = { inherit system; }; cc.cc.lib = "libstdc++"; };
      autoPatchelfHook = "autoPatchelfHook";
      python313Packages = lib.genAttrs names (name: name) // {
        buildPythonApplication = package: package;
        buildPythonPackage = package: package;
        fetchPypi = source: source;
      };
    };
}
