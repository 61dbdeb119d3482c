"""Images to numbers: extractors, their pixel protocols, a cache of features, worlds of real data."""
