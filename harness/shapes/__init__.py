"""The embedded world: captioned shapes, how its pipelines and extractors were trained, and their weights."""
