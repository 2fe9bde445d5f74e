"""Who may use the store: tokens, identities of other issuers, and the layer that turns credentials into grants."""
