"""Ways to work off a plan: every executor takes the same plan and writes the same store."""
