"""What changes proxies while they run: the operations, and the APIs that translate to them."""
