"""What a client of other servers takes from its environment: credentials, proxies, and the authorities to trust."""
