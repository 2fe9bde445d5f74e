# tvix-store as a package: nixpkgs.callPackage ./package.nix { }
{
  lib,
  stdenv,
  python313Packages,
  autoPatchelfHook,
}:

let
  python = python313Packages;

  # Two dependencies that nixpkgs lacks, as their wheels. Versions and hashes are those of requirements/run.txt.
  wheel =
    {
      pname,
      version,
      platform,
      hash,
    }:
    python.buildPythonPackage {
      inherit pname version;
      format = "wheel";
      src = python.fetchPypi {
        inherit pname version;
        format = "wheel";
        dist = "cp313";
        python = "cp313";
        abi = "cp313";
        platform = platform.${stdenv.hostPlatform.system};
        sha256 = hash.${stdenv.hostPlatform.system};
      };
      nativeBuildInputs = [ autoPatchelfHook ];
      buildInputs = [ stdenv.cc.cc.lib ];
      pythonImportsCheck = [ pname ];
    };

  h2corn = wheel {
    pname = "h2corn";
    version = "2.0.0";
    platform.x86_64-linux = "manylinux_2_28_x86_64";
    platform.aarch64-linux = "manylinux_2_28_aarch64";
    hash.x86_64-linux = "c6932475645c47fc7f3eaa5557bfcdd8377e7843fd869e677e1c75fc2ec6b6ef";
    hash.aarch64-linux = "81fb63d3ef06814d6c532fe1959665466902ab074b39590e812505580d21d683";
  };

  pyfastcdc = wheel {
    pname = "pyfastcdc";
    version = "0.3.1";
    platform.x86_64-linux = "manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64";
    platform.aarch64-linux = "manylinux2014_aarch64.manylinux_2_17_aarch64.manylinux_2_28_aarch64";
    hash.x86_64-linux = "2b38d4b0db080c9397be0c6571d22756e7e917284a91e8571110d5a30745b354";
    hash.aarch64-linux = "c4eca065bc2aead4960d3eecfeae9b144248a75f9007d0a54432a943d937e5f8";
  };

  # What lies between the headings of CHANGELOG.md, and their versions. A tree without a release is 0.
  releases = builtins.split "\n## ([^ ]+) " (builtins.readFile ../../CHANGELOG.md);
  version = if builtins.length releases == 1 then "0" else builtins.head (builtins.elemAt releases 1);
in
python.buildPythonApplication {
  pname = "tvix-store";
  inherit version;
  pyproject = true;
  src = lib.cleanSource ../..;

  build-system = [
    python.hatch-vcs
    python.hatchling
  ];
  env.SETUPTOOLS_SCM_PRETEND_VERSION = version; # the source has no tags
  # nixpkgs has one version of each, which may be older than the newest that pyproject.toml asks for.
  pythonRelaxDeps = true;
  dependencies = [
    python.aiohappyeyeballs
    python.aiohttp
    python.backports-zstd
    python.blake3
    python.brotli
    python.click
    h2corn
    python.isal
    python.lmdb
    python.lz4
    python.prometheus-client
    pyfastcdc
    python.pyjwt
    python.cryptography
    python.pynacl
    python.uvloop
    python.yarl
    python.zstandard
  ];

  pythonImportsCheck = [ "tvix_store.cli" ];

  meta = {
    description = "A granular content-addressed store for Nix";
    license = lib.licenses.mit;
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
    mainProgram = "tvix-store";
  };
}
