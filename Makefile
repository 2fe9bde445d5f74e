# `make run ARGS="--listen-address localhost:9000"`; the tasks and what they do: python3 dev.py help
TASKS := run test newer-nix lint docs format fuzz mutants conformance bench protos page lock release clean

.PHONY: $(TASKS)
$(TASKS):
	@python3 dev.py $@ $(ARGS)
