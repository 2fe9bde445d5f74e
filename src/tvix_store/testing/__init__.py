"""For those who write a backend or a layer: contract suites, a state machine, strategies, and fault injection. Public."""
