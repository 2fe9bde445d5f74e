"""What the daemon shows of its work: access log, logs, metrics, probes, traces, and the lines at its start and end."""
