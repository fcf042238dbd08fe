"""Everything that can be found by name: methods, nets, data sets, instruments."""
