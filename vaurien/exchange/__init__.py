"""Which exchange a byte belongs to, whose turn it is, and who deals with it. All of it is pure."""
