"""Published schemas of the manifests in ``examples/container``; `renew` tells where from."""
