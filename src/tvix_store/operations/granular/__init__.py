"""The parts of a store's content, one by one: for who copies between stores."""
