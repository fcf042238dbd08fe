"""What torch's own layers can do beside their forward pass, a file for each kind of layer: see `bench.api.layer`."""
