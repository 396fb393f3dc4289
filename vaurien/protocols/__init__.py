"""Framers: which exchange a byte belongs to. One module or package each; all are pure."""
