"""What a command shows while it runs and when it ends: lines, tables and a bar, in a terminal, a pipe or a notebook."""
