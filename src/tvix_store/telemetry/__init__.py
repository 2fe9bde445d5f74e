"""What the rooms tell about their work: counts, and notes about the request that is being answered. Knows nobody who reads them."""
