"""What a client takes from its environment: the user's directories, and for other servers credentials, proxies and authorities."""
