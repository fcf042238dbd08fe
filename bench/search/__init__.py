"""The search of settings: equal effort for every method, on validation data alone, and what is kept of it."""
