"""The binary cache: what stock Nix pushes to and substitutes from, over plain HTTP. See docs/design/http.md."""
