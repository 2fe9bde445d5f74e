"""`python -m tvix_store.cli`: the program, where only the interpreter is at hand."""

from tvix_store.cli import main

main()
