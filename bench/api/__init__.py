"""What plugins implement and receive. Imports nothing of the harness."""
