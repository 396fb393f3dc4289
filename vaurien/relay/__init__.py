"""The relay: proxies at work. It joins the loop (``net``) with what is pure."""
