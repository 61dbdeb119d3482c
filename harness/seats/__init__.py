"""Everything about seating a mixer at the sites of a denoiser, with or without the harness."""
