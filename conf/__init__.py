"""What exists and what is chosen: Hydra's configuration groups, one folder each. Nothing here runs."""
