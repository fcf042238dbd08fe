"""What a method really does, measured against what it claims: reach of reverse mode, passes, dependencies."""
