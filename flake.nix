{
  description = "A granular content-addressed store for Nix";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      packages =
        system:
        let
          tvix-store = nixpkgs.legacyPackages.${system}.callPackage ./packaging/nixos/package.nix { };
        in
        {
          inherit tvix-store;
          default = tvix-store;
        };
    in
    {
      packages = nixpkgs.lib.genAttrs systems packages;
      overlays.default = final: prev: { tvix-store = final.callPackage ./packaging/nixos/package.nix { }; };
      nixosModules.default = import ./packaging/nixos/module.nix;
    };
}
