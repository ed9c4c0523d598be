def attach(): pass
