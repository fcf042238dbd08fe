"""Run records on disk and the view over them."""
