"""Makes the schema beside this file anew; by hand, in an environment of its own.

    pip install kubernetes-validate==1.37.0
    python -m tests.schemas.renew

Law: what is published is not changed, only cut down. kubernetes-validate brings 110 MB, the schemas
of 13 versions of Kubernetes; of its strict ones for one version, the definitions of the kinds that
the example uses, and what these refer to, are kept, without the prose (Kubernetes is under
Apache-2.0).
"""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KUBERNETES = "1.37.0"
KINDS = {
    "apps/v1 Deployment": "io.k8s.api.apps.v1.Deployment",
    "v1 ConfigMap": "io.k8s.api.core.v1.ConfigMap",
    "v1 Service": "io.k8s.api.core.v1.Service",
}


def without_prose(node: Any) -> Any:
    """A schema without descriptions and extensions, its references turned to its own file."""
    if isinstance(node, list):
        return [without_prose(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {
        name: without_prose(value)
        for name, value in node.items()
        if not (name == "description" and isinstance(value, str)) and not name.startswith("x-")
    }
    if isinstance(kept.get("$ref"), str):
        kept["$ref"] = kept["$ref"].replace("/api/_definitions.json#", "#")
    return kept


def main() -> None:
    """Write the file."""
    strict = f"kubernetes-json-schema/v{KUBERNETES}-local-strict"
    every = json.loads(
        (resources.files("kubernetes_validate") / strict / "_definitions.json").read_text()
    )["$defs"]
    found: dict[str, Any] = {}
    names = sorted(KINDS.values())
    while names:
        if (name := names.pop()) not in found:
            found[name] = without_prose(every[name])
            names += re.findall(r'#/\$defs/([^"]+)"', json.dumps(found[name]))
    text = json.dumps({"$defs": found}, separators=(",", ":"), sort_keys=True)
    text = text.replace('"io.k8s', '\n"io.k8s')  # a line each
    (HERE / f"kubernetes-{KUBERNETES}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
