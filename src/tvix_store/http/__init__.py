"""The binary cache over plain HTTP: stock Nix pushes to it and substitutes from it. See docs/design/http.md."""
