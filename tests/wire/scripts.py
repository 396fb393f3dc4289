"""The scripts: each a conversation that a client of Toxiproxy's API might have, step by step.

Together they go through all that the text on Toxiproxy's API says. `Step.differs` and
`Step.vaurien` stand where Vaurien answers otherwise, on purpose.
"""

from __future__ import annotations

from typing import Any

from tests.wire.clients import CLIENTS, Script
from tests.wire.containers import CONTAINERS
from tests.wire.player import Json, Step, Talk, makes, refuses, shown


def get(path: str, **words: Any) -> Step:
    return Step("GET", path, **words)


def post(path: str, body: Any = None, **words: Any) -> Step:
    return Step("POST", path, body, **words)


def patch(path: str, body: Any = None, **words: Any) -> Step:
    return Step("PATCH", path, body, **words)


def delete(path: str, **words: Any) -> Step:
    return Step("DELETE", path, **words)


def proxy(name: str = "p", listen: str = "127.0.0.1:0", upstream: str = "{A}", **more: Any) -> Json:
    """The body that makes a proxy."""
    return {"name": name, "listen": listen, "upstream": upstream, **more}


#: The types of toxics, with attributes of which none is the default.
TOXICS: dict[str, Json] = {
    "latency": {"latency": 1000, "jitter": 50},
    "bandwidth": {"rate": 100},
    "slow_close": {"delay": 500},
    "timeout": {"timeout": 2000},
    "reset_peer": {"timeout": 3000},
    "slicer": {"average_size": 64, "size_variation": 32, "delay": 10},
    "limit_data": {"bytes": 4096},
    "noop": {},
}


def in_use(place: str = "127.0.0.1:{free1}", whose: str = "one", **more: Any) -> dict[str, Any]:
    """What is answered for an address that another proxy has, and why."""
    error = f"listen tcp {place}: bind: address already in use (by proxy '{whose}')"
    body = {"error": error, "status": 500, **more}
    return {
        "differs": "in-use-by",
        "vaurien": {"status": 500, "content_type": "application/json", "json": body},
    }


NOOP = {
    "attributes": {},
    "name": "noop_downstream",
    "type": "noop",
    "stream": "downstream",
    "toxicity": 1,
}
LATENCY = {**NOOP, "name": "latency_downstream", "type": "latency"}

#: By name: a name is the name of a recording.
SCRIPTS: dict[str, Script] = {
    "proxies": [
        get("/proxies"),
        post("/proxies", proxy()),
        get("/proxies"),
        get("/proxies/p"),
        Talk("first", "127.0.0.1:{port1}"),
        post("/proxies", proxy("q", upstream="{B}", enabled=True)),
        Talk("second", "127.0.0.1:{port2}"),
        post("/proxies", proxy("off", "localhost:0", enabled=False)),
        get("/proxies/off"),
        post("/proxies", proxy("null", enabled=None)),
        post("/proxies", proxy("nowhere", upstream="nowhere.invalid:6379")),
        post("/proxies", proxy("go's client", toxics=None)),
        get("/proxies"),
        delete("/proxies/q"),
        Talk("second", "127.0.0.1:{port2}"),
        Talk("third", "127.0.0.1:{port2}"),
        get("/proxies/q"),
        delete("/proxies/q"),
        Talk("first", "127.0.0.1:{port1}"),
        post("/proxies", proxy("q", upstream="{A}")),
        delete("/proxies/go's%20client"),
        get("/proxies"),
    ],
    "proxy_errors": [
        post("/proxies", proxy()),
        post("/proxies", proxy("p", "{taken}", "{B}")),
        post("/proxies", {"listen": "127.0.0.1:0", "upstream": "{A}"}),
        post("/proxies", {"listen": "127.0.0.1:0"}),
        post("/proxies", {"name": "", "upstream": ""}),
        post("/proxies", {"name": None, "upstream": "{A}"}),
        post("/proxies", {"name": "q", "listen": "127.0.0.1:0"}),
        post("/proxies", {"name": "p"}),
        post("/proxies"),
        post("/proxies", ""),
        post("/proxies", "{"),
        post("/proxies", "no JSON"),
        post("/proxies", [proxy("q")]),
        post("/proxies", '"a string"'),
        post("/proxies", {"name": 7, "upstream": "{A}"}),
        post("/proxies", proxy("q", enabled="yes")),
        post("/proxies", proxy("q", "{taken}")),
        get("/proxies/q"),
        post("/proxies", proxy("q", "{taken}", enabled=False)),
        get("/proxies/nobody"),
        delete("/proxies/nobody"),
        post("/proxies/nobody", "{"),
        patch("/proxies/nobody", {"enabled": False}),
        post("/proxies/p"),
        post("/proxies/p", "{"),
        patch("/proxies/p", "[]"),
        patch("/proxies/p", {"enabled": "no"}),
        get("/proxies"),
    ],
    "listen": [
        post("/proxies", proxy("name", "localhost:{free1}")),
        post("/proxies/name", {"enabled": False}),
        Talk("off", "127.0.0.1:{free1}"),
        get("/proxies/name"),
        post("/proxies/name", {"enabled": True}),
        Talk("on", "127.0.0.1:{free1}"),
        post("/proxies", proxy("any", "localhost:0")),
        patch("/proxies/any", {"enabled": False}),
        patch("/proxies/any", {"enabled": True}),
        Talk("any", "127.0.0.1:{port1}"),
        post("/proxies", proxy("never", "localhost:0", enabled=False)),
        get("/proxies/never"),
        post("/proxies/never", {"upstream": "{B}"}),
        post("/proxies/never", {"enabled": True}),
        Talk("never", "127.0.0.1:{port2}"),
        post("/proxies/never", {"enabled": False}),
        get("/proxies/never"),
        get("/proxies"),
    ],
    "json": [  # what Go's decoder takes
        post("/proxies", {"Name": "p", "Listen": "127.0.0.1:0", "UPSTREAM": "{A}"}),
        post("/proxies", '{"name": "x", "Name": "q", "listen": "127.0.0.1:0", "upstream": "{B}"}'),
        post(
            "/proxies",
            '{"name": "r", "name": null, "listen": ":x", "Upstream": "{A}",'
            ' "listen": "127.0.0.1:0"} // text',
        ),
        post("/proxies", ' \n{"name": "s", "upstream": "{A}", "listen": "127.0.0.1:0"}{"name"'),
        post("/proxies", '{"name": 5, "name": "t", "upstream": "{A}"}'),
        post("/proxies", '{"name": "t", "upstream": "{A}",}'),
        post("/proxies", '\ufeff{"name": "t", "upstream": "{A}"}'),
        post("/proxies", "{'name': 't', 'upstream': '{A}'}"),
        post("/proxies", '{"name": "t", "upstream": "{A}", "enabled": nul}'),
        post("/proxies", "null"),
        patch("/proxies/p", "null"),
        patch("/proxies/p", '{"ENABLED": false} }'),
        patch("/proxies/p", '{"Enabled": false, "enabled": true}'),
        Talk("one", "127.0.0.1:{port1}"),
        post(
            "/proxies/p/toxics",
            {
                "Name": "slow",
                "Type": "latency",
                "Stream": "DownStream",
                "Toxicity": 0.5,
                "Attributes": {"Latency": 1000, "JITTER": 5},
            },
        ),
        post("/proxies/p/toxics", {"Type": "slicer", "Attributes": {"Average_Size": 64}}),
        post("/proxies/p/toxics", '{"type": "noop", "\u017ftream": "up\u017ftream"}'),
        post("/proxies/p/toxics", '{"type": "noop", "\u017ftream": "upstream"}'),
        post("/proxies/p/toxics", '{"type": "noop", "name": "a \\ud800 b"}'),
        post(
            "/proxies/p/toxics",
            '{"type": "latency", "name": "two", "attributes": {"latency": 1},'
            ' "attributes": {"jitter": 2, "latency": 3, "Latency": 4}}',
        ),
        post(
            "/proxies/p/toxics",
            '{"type": "latency", "name": "null", "attributes":'
            ' {"latency": 1, "jitter": 2, "Jitter": null}, "attributes": null} and so on',
        ),
        post("/proxies/p/toxics", "null"),
        post("/proxies/p/toxics", '{"type": "noop", "name": "n", "toxicity": 1.0x}'),
        patch("/proxies/p/toxics/two", "null"),
        patch("/proxies/p/toxics/two", '{"Attributes": {"Jitter": 3}, "TOXICITY": 0.5} text'),
        patch("/proxies/p/toxics/two", '{"toxicity": 0.25, "Toxicity": null}'),
        post("/populate", "null"),
        post("/populate", "[null]"),
        post(
            "/populate",
            '[{"NAME": "t", "UpStream": "{A}", "listen": "127.0.0.1:0", "enabled": false}] // text',
        ),
        post("/populate", '[{"Name": "u", "upstream": "{A}", "Listen": "127.0.0.1:0"},]'),
        get("/proxies"),
    ],
    "proxy_update": [
        post("/proxies", proxy()),
        post("/proxies/p/toxics", {"type": "noop"}),
        Talk("a", "127.0.0.1:{port1}"),
        post("/proxies/p", {}),
        patch("/proxies/p", {"name": "other"}),
        post("/proxies/p", {"name": None, "listen": None, "upstream": None, "enabled": None}),
        post("/proxies/p", proxy("p", "127.0.0.1:{port1}", enabled=True)),
        post("/proxies/p", {"listen": "localhost:{port1}"}),
        Talk("a", "127.0.0.1:{port1}"),
        # As Go's client does it: all that it knows of the proxy, its toxics of a while ago too.
        post("/proxies/p", proxy("p", "127.0.0.1:{port1}", enabled=True, toxics=[])),
        Talk("a", "127.0.0.1:{port1}"),
        patch("/proxies/p", {"upstream": "{B}"}),
        Talk("a", "127.0.0.1:{port1}"),
        Talk("b", "127.0.0.1:{port1}"),
        post("/proxies/p", {"listen": "localhost:{free1}"}),
        Talk("b", "127.0.0.1:{port1}"),
        Talk("c", "127.0.0.1:{port1}"),
        Talk("d", "127.0.0.1:{free1}"),
        post("/proxies/p", {"enabled": False}),
        Talk("d", "127.0.0.1:{free1}"),
        Talk("e", "127.0.0.1:{free1}"),
        post("/proxies/p", {"enabled": False}),
        patch("/proxies/p", {"listen": "localhost:{free2}", "upstream": "{A}"}),
        get("/proxies/p"),
        patch("/proxies/p", {"enabled": True}),
        Talk("f", "127.0.0.1:{free2}"),
        patch("/proxies/p", {"enabled": True}),
        Talk("f", "127.0.0.1:{free2}"),
        patch("/proxies/p", {"listen": "127.0.0.1:{free1}", "enabled": False}),
        Talk("f", "127.0.0.1:{free2}"),
        Talk("g", "127.0.0.1:{free1}"),
        get("/proxies/p"),
        get("/proxies/other"),
    ],
    "port_by_name": [  # a port in use is named by its resolved address
        post("/proxies", proxy("one", "localhost:{free1}")),
        post("/proxies", proxy("two", "localhost:{free1}"), **in_use()),
        post("/proxies", proxy("two", "LocalHost:{free1}", enabled=False)),
        post("/proxies/two", {"enabled": True}, **in_use()),
        post("/populate", [proxy("three", "localhost:{free1}")], **in_use(proxies=[])),
        get("/proxies"),
    ],
    "named_ports": [
        post("/proxies", proxy("up", upstream="localhost:http")),
        post("/proxies", proxy("off", "localhost:http", "localhost:HTTPS", enabled=False)),
        get("/proxies/up"),
        post("/proxies/up", {"upstream": "[::1]:ssh"}),
        patch("/proxies/up", {"upstream": "{A}"}),
        Talk("one", "127.0.0.1:{port1}"),
        post("/populate", [proxy("two", upstream="localhost:smtp")]),
        get("/proxies"),
    ],
    "port_in_use": [
        post("/proxies", proxy("off", "{taken}", enabled=False)),
        post("/proxies/off", {"enabled": True}),
        get("/proxies/off"),
        post("/reset"),
        get("/proxies/off"),
        post("/proxies/off", {"listen": "127.0.0.1:0", "enabled": True}),
        post("/reset"),
    ],
    "listen_everywhere": [  # 0.0.0.0 has the addresses of both kinds
        post("/proxies", proxy("one", "0.0.0.0:0")),
        Talk("a", "127.0.0.1:{port1}"),
        Talk("b", "[::1]:{port1}"),
        post("/proxies/one", {"listen": "[::]:{port1}"}),
        Talk("b", "[::1]:{port1}"),
        post("/proxies/one", {"enabled": False}),
        post("/proxies/one", {"enabled": True}),
        Talk("c", "[::1]:{port1}"),
        post("/proxies", proxy("off", "0.0.0.0:0", enabled=False)),
        post("/proxies/off", {"enabled": True}),
        Talk("d", "[::1]:{port2}"),
        post("/proxies", proxy("two", "0.0.0.0:{free1}")),
        post("/proxies", proxy("three", "0.0.0.0:{free1}"), **in_use("0.0.0.0:{free1}", "two")),
        post("/proxies", proxy("three", ":{free1}"), **in_use(":{free1}", "two")),
        post("/proxies", proxy("three", "[::1]:{free1}"), **in_use("[::1]:{free1}", "two")),
        post("/proxies", proxy("four", ":0")),
        Talk("e", "127.0.0.1:{port3}"),
        Talk("f", "[::1]:{port3}"),
        post("/proxies", proxy("five")),
        patch("/proxies/five", {"listen": "0.0.0.0:{free2}"}),
        Talk("g", "[::1]:{free2}"),
        post("/populate", [proxy("six", "0.0.0.0:0")]),
        Talk("h", "[::1]:{port5}"),
        get("/proxies"),
    ],
    "listen_port_0": [  # each time that it is asked for, it is another port
        post("/proxies", proxy()),
        Talk("a", "127.0.0.1:{port1}"),
        post("/proxies/p", {"listen": "127.0.0.1:0"}),
        Talk("a", "127.0.0.1:{port1}"),
        Talk("b", "127.0.0.1:{port1}"),
        Talk("c", "127.0.0.1:{port2}"),
        patch("/proxies/p", {"listen": "127.0.0.1:{port2}"}),
        patch("/proxies/p", {"enabled": True}),
        patch("/proxies/p", proxy("p", "localhost:{port2}", enabled=True)),
        Talk("c", "127.0.0.1:{port2}"),
        patch("/proxies/p", {"listen": "localhost:0", "upstream": "{B}"}),
        Talk("c", "127.0.0.1:{port2}"),
        Talk("d", "127.0.0.1:{port3}"),
        patch("/proxies/p", {"listen": "127.0.0.1:0", "enabled": False}),
        Talk("d", "127.0.0.1:{port3}"),
        get("/proxies/p"),
        patch("/proxies/p", {"enabled": True}),
        Talk("e", "127.0.0.1:{port4}"),
        patch("/proxies/p", {"enabled": False}),
        patch("/proxies/p", {"listen": "127.0.0.1:0"}),
        get("/proxies/p"),
        patch("/proxies/p", {"enabled": True}),
        Talk("f", "127.0.0.1:{port5}"),
    ],
    "toxics": [
        post("/proxies", proxy()),
        get("/proxies/p/toxics"),
        *[
            post("/proxies/p/toxics", {"type": kind, "attributes": attributes})
            for kind, attributes in TOXICS.items()
        ],
        *[get(f"/proxies/p/toxics/{kind}_downstream") for kind in TOXICS],
        get("/proxies/p/toxics"),
        get("/proxies/p"),
        get("/proxies"),
        *[delete(f"/proxies/p/toxics/{kind}_downstream") for kind in TOXICS],
        get("/proxies/p/toxics"),
    ],
    "toxic_defaults": [
        post("/proxies", proxy()),
        *[post("/proxies/p/toxics", {"type": kind}) for kind in TOXICS],
        *[
            post(
                "/proxies/p/toxics",
                {"type": kind, "stream": "upstream", "toxicity": 0.5, "attributes": {}},
            )
            for kind in TOXICS
        ],
        get("/proxies/p/toxics"),
        post("/reset"),
        *[
            post(
                "/proxies/p/toxics",
                {
                    "type": kind,
                    "name": None,
                    "stream": None,
                    "toxicity": None,
                    "attributes": None,
                },
            )
            for kind in TOXICS
        ],
        post("/reset"),
        *[
            post("/proxies/p/toxics", {"type": kind, "attributes": dict.fromkeys(attributes)})
            for kind, attributes in TOXICS.items()
        ],
        post("/proxies/p/toxics", {"type": "noop", "name": "", "stream": "upstream"}),
        post("/proxies/p/toxics", {"type": "latency", "name": "l", "attributes": {"jitter": 9}}),
        post("/proxies/p/toxics", {"type": "slicer", "name": "s", "attributes": {"delay": 9}}),
        get("/proxies/p"),
    ],
    "toxic_names": [
        post("/proxies", proxy()),
        post("/proxies/p/toxics", {"type": "latency", "stream": "UPSTREAM"}),
        post("/proxies/p/toxics", {"type": "latency", "stream": "Upstream"}),
        post("/proxies/p/toxics", {"type": "latency", "stream": "upstream"}),
        post("/proxies/p/toxics", {"type": "latency", "stream": "Downstream", "name": "mine"}),
        post("/proxies/p/toxics", {"type": "noop", "stream": "upstream", "name": "mine"}),
        post("/proxies/p/toxics", {"type": "noop", "stream": "downstream", "name": "Mine"}),
        get("/proxies/p/toxics/latency_UPSTREAM"),
        get("/proxies/p/toxics/mine"),
        post("/proxies/p/toxics", {"type": "noop", "name": "a name of wörds"}),
        get("/proxies/p/toxics/a%20name%20of%20w%C3%B6rds"),
        patch("/proxies/p/toxics/a%20name%20of%20w%C3%B6rds", {"toxicity": 0}),
        delete("/proxies/p/toxics/a%20name%20of%20w%C3%B6rds"),
        get("/proxies/p/toxics"),
    ],
    "toxic_order": [
        post("/proxies", proxy()),
        post("/proxies/p/toxics", {"type": "noop", "name": "down 1"}),
        post("/proxies/p/toxics", {"type": "latency", "name": "up 1", "stream": "upstream"}),
        post("/proxies/p/toxics", {"type": "latency", "name": "down 2", "stream": "Downstream"}),
        post("/proxies/p/toxics", {"type": "noop", "name": "up 2", "stream": "UPSTREAM"}),
        post("/proxies/p/toxics", {"type": "slicer", "name": "down 3"}),
        post("/proxies/p/toxics", {"type": "slicer", "name": "up 3", "stream": "upstream"}),
        get("/proxies/p/toxics"),
        get("/proxies/p"),
        delete("/proxies/p/toxics/up%202"),
        delete("/proxies/p/toxics/down%201"),
        patch("/proxies/p/toxics/down%202", {"attributes": {"latency": 3}}),
        post("/proxies/p/toxics", {"type": "noop", "name": "up 2", "stream": "upstream"}),
        post("/proxies/p/toxics", {"type": "noop", "name": "down 1"}),
        get("/proxies/p/toxics"),
        get("/proxies"),
    ],
    "toxic_update": [
        post("/proxies", proxy()),
        post("/proxies/p/toxics", {"type": "latency", "attributes": {"latency": 5}}),
        post("/proxies/p/toxics/latency_downstream", {"attributes": {"jitter": 2}}),
        patch("/proxies/p/toxics/latency_downstream", {"attributes": {"latency": 7}}),
        patch("/proxies/p/toxics/latency_downstream", {"toxicity": 0.25}),
        post("/proxies/p/toxics/latency_downstream", {"toxicity": 0}),
        get("/proxies/p/toxics/latency_downstream"),
        post("/proxies/p/toxics/latency_downstream", {"toxicity": 0.75, "attributes": {}}),
        post("/proxies/p/toxics/latency_downstream", {}),
        patch("/proxies/p/toxics/latency_downstream", {"toxicity": None, "attributes": None}),
        patch("/proxies/p/toxics/latency_downstream", {"attributes": {"latency": None}}),
        # As Node's client does it.
        post(
            "/proxies/p/toxics/latency_downstream",
            {
                "attributes": {"latency": 8, "jitter": 1},
                "name": "latency_downstream",
                "stream": "downstream",
                "toxicity": 1,
                "type": "latency",
            },
        ),
        post(
            "/proxies/p/toxics/latency_downstream",
            {"name": "other", "stream": "upstream", "type": "noop", "toxicity": 0.5},
        ),
        get("/proxies/p/toxics"),
        *[
            step
            for kind, attributes in list(TOXICS.items())[1:]
            for step in (
                post("/proxies/p/toxics", {"type": kind, "name": kind}),
                patch(f"/proxies/p/toxics/{kind}", {"attributes": attributes}),
            )
        ],
        get("/proxies/p/toxics"),
    ],
    "toxic_errors": [
        post("/proxies", proxy()),
        post("/proxies/p/toxics", {"type": "latency", "name": "there"}),
        # The order of checks: the proxy, the JSON, the stream, the type, the name, the attributes.
        post("/proxies/nobody/toxics", "{"),
        post("/proxies/nobody/toxics", {"type": "noop"}),
        post("/proxies/p/toxics", '{"stream": "sideways", "type": "chaos"'),
        post(
            "/proxies/p/toxics",
            {
                "stream": "sideways",
                "type": "chaos",
                "name": "there",
                "attributes": {"latency": "long"},
            },
        ),
        post(
            "/proxies/p/toxics",
            {"type": "chaos", "name": "there", "attributes": {"latency": "long"}},
        ),
        post(
            "/proxies/p/toxics",
            {"type": "latency", "name": "there", "attributes": {"latency": "long"}},
        ),
        post(
            "/proxies/p/toxics",
            {"type": "latency", "name": "new", "attributes": {"latency": "long"}},
        ),
        post("/proxies/p/toxics", {}),
        post("/proxies/p/toxics", {"type": None}),
        post("/proxies/p/toxics", {"type": "LATENCY"}),
        post("/proxies/p/toxics", {"type": "latency", "stream": ""}),
        post("/proxies/p/toxics", {"type": "latency", "stream": 1}),
        post("/proxies/p/toxics", {"type": "latency", "toxicity": "often"}),
        post("/proxies/p/toxics", {"type": "latency", "attributes": [1]}),
        post("/proxies/p/toxics", {"type": 5}),
        post("/proxies/p/toxics", [{"type": "latency"}]),
        post("/proxies/p/toxics"),
        post("/proxies/p/toxics", "{"),
        get("/proxies/nobody/toxics"),
        get("/proxies/nobody/toxics/there"),
        get("/proxies/p/toxics/nothing"),
        post("/proxies/nobody/toxics/there", "{"),
        post("/proxies/p/toxics/nothing", "{"),
        patch("/proxies/p/toxics/nothing", {"toxicity": 1}),
        patch("/proxies/p/toxics/there", "{"),
        patch("/proxies/p/toxics/there"),
        patch("/proxies/p/toxics/there", {"toxicity": "never"}),
        patch("/proxies/p/toxics/there", {"attributes": {"latency": "long"}}),
        delete("/proxies/nobody/toxics/there"),
        delete("/proxies/p/toxics/nothing"),
        delete("/proxies/p/toxics/there"),
        delete("/proxies/p/toxics/there"),
        get("/proxies/p/toxics"),
    ],
    "populate": [
        post("/populate", [proxy("one"), proxy("two", upstream="{B}", enabled=False)]),
        Talk("one", "127.0.0.1:{port1}"),
        post("/proxies/one/toxics", {"type": "noop"}),
        # The same: left as it is, with its toxics and its connections.
        post("/populate", [proxy("one", "127.0.0.1:{port1}")]),
        post("/populate", [proxy("one", "localhost:{port1}", enabled=False)]),
        Talk("one", "127.0.0.1:{port1}"),
        # Another upstream, another address: replaced.
        post("/populate", [proxy("one", "127.0.0.1:{port1}", "{B}")]),
        Talk("one", "127.0.0.1:{port1}"),
        Talk("one again", "127.0.0.1:{port1}"),
        post("/proxies/one/toxics", {"type": "noop"}),
        post("/populate", [proxy("one", "127.0.0.1:{free1}", "{B}")]),
        Talk("one again", "127.0.0.1:{port1}"),
        Talk("gone", "127.0.0.1:{port1}"),
        Talk("there", "127.0.0.1:{free1}"),
        post("/proxies/one", {"enabled": False}),
        post("/populate", [proxy("one", "127.0.0.1:{free1}", "{B}", enabled=True)]),
        get("/proxies/two"),
        # As Go's client does it.
        post("/populate", [proxy("go", "localhost:{free2}", enabled=True, toxics=None)]),
        get("/proxies"),
    ],
    "populate_port_0": [
        post("/populate", [proxy("one")]),
        Talk("one", "127.0.0.1:{port1}"),
        post(
            "/populate",
            [proxy("one")],
            differs="populate-port-0",
            vaurien={
                "status": 201,
                "content_type": "application/json",
                "json": {
                    "proxies": [
                        {
                            "name": "one",
                            "listen": "127.0.0.1:{port1}",
                            "upstream": "{A}",
                            "enabled": True,
                            "toxics": [],
                        }
                    ]
                },
            },
        ),
        Talk(
            "one",
            "127.0.0.1:{port1}",
            differs="populate-port-0",
            vaurien={"result": "A"},
        ),
    ],
    "populate_errors": [
        post("/populate", proxy()),
        post("/populate", "["),
        post("/populate", ""),
        post("/populate"),
        post("/populate", ["one"]),
        post("/populate", [proxy("one"), {"upstream": "{A}"}]),
        post("/populate", [proxy("one"), proxy("two"), {"name": "three"}]),
        post("/populate", [{}]),
        get("/proxies"),
        post("/populate", [proxy("one"), proxy("two", "{taken}"), proxy("three")]),
        get("/proxies"),
        post("/populate", [proxy("two", "{taken}", enabled=False)]),
        post("/populate", []),
        get("/proxies"),
    ],
    "reset": [
        post("/reset"),
        post("/proxies", proxy("one")),
        post("/proxies", proxy("two")),
        post("/proxies", proxy("never", "localhost:0", "{B}", enabled=False)),
        post("/proxies/one/toxics", {"type": "timeout", "stream": "upstream"}),
        post("/proxies/one/toxics", {"type": "latency", "attributes": {"latency": 100_000}}),
        post("/proxies/two/toxics", {"type": "noop"}),
        post("/proxies/two", {"enabled": False}),
        post("/reset"),
        get("/proxies"),
        Talk("one", "127.0.0.1:{port1}"),
        Talk("two", "127.0.0.1:{port2}"),
        Talk("never", "127.0.0.1:{port3}"),
        post("/reset", {}),
        Talk("one", "127.0.0.1:{port1}"),
    ],
    "differences": [  # one after the other, as they stand in the list
        post("/proxies", proxy()),
        post(
            "/proxies",
            proxy("q", upsteam="{B}"),
            **refuses("unknown-fields", "bad request body: {any}"),
        ),
        post(
            "/proxies/p/toxics",
            {"type": "latency", "name": "n", "attributes": {"latncy": 5}},
            **refuses("unknown-fields", "bad request body: {any}"),
        ),
        post(
            "/proxies/p/toxics",
            {"type": "latency", "name": "negative", "attributes": {"latency": -5}},
            **refuses("unknown-fields", "bad request body: {any}"),
        ),
        post(
            "/proxies/p/toxics",
            {"type": "noop", "name": "often", "toxicity": 2},
            **refuses("unknown-fields", "bad request body: {any}"),
        ),
        post(
            "/populate",
            [proxy("with", toxics=[{"type": "noop"}])],
            **makes(
                "toxics-applied", {"proxies": [shown("with", "127.0.0.1:{port2}", toxics=[NOOP])]}
            ),
        ),
        post(
            "/proxies",
            {"name": "nowhere", "upstream": "{A}"},
            **makes("default-listen", shown("nowhere", "127.0.0.1:{port3}")),
        ),
        post(
            "/proxies",
            proxy("unix", "unix:/nowhere/x"),
            **refuses("unix", "unix:/nowhere/x: unix sockets are for the configuration only{any}"),
        ),
        post(
            "/proxies/p/toxics",
            {"type": "latency", "name": "s", "attributes": {"stream": "upstream"}},
            **refuses("stream-attribute", "bad request body: {any}"),
        ),
        post(
            "/proxies/p",
            {"upstream": ""},
            **refuses("empty-address", "bad request body: upstream is empty; {any}"),
        ),
        post(
            "/proxies",
            proxy("no port", upstream="127.0.0.1"),
            **refuses("backend-address", "upstream: '127.0.0.1' has no port; {any}"),
        ),
        post(
            "/proxies",
            proxy("no name", upstream="localhost:nosuch"),
            **refuses("backend-address", "upstream: 'nosuch' is not the name of a port{any}"),
        ),
        post(
            "/proxies",
            proxy("self", "127.0.0.1:{free1}", "127.0.0.1:{free1}"),
            **refuses("circles", "upstream: '127.0.0.1:{free1}' is where it listens itself"),
        ),
        post(
            "/proxies",
            proxy("a/b"),
            **refuses("names", "name: 'a/b' is no name for a proxy; {any}"),
        ),
        get("/proxies/a%2Fb"),
        post(
            "/proxies/p/toxics",
            '{"type": "latency", "attributes": {"latency": 1000.0}}',
            **makes("fractions", {**LATENCY, "attributes": {"latency": 1000, "jitter": 0}}, 200),
        ),
        post(
            "/proxies/p/toxics",
            '{"type": "latency", "name": "null", "attributes": null, "attributes": {"latency": 5}}',
            **makes(
                "null-attributes",
                {**LATENCY, "name": "null", "attributes": {"latency": 5, "jitter": 0}},
                200,
            ),
        ),
        get("/version", headers={"Host": "evil.example"}, **refuses("host", "{any}", 403)),
    ],
    "rest": [
        get("/version"),
        get("/nothing"),
        Step(
            "GET",
            "/",
            differs="root",
            vaurien={
                "status": 200,
                "content_type": "application/json",
                "json": {"name": "vaurien", "version": "{any}", "api": "/openapi.json"},
            },
        ),
        get("/proxies/p/nothing"),
        delete("/proxies"),
        Step("PUT", "/proxies", proxy()),
        patch("/proxies", proxy()),
        post("/proxies", proxy()),
        Step("PUT", "/proxies/p", {"enabled": False}),
        delete("/proxies/p/toxics"),
        patch("/proxies/p/toxics", {"type": "noop"}),
        post("/proxies/p/toxics", {"type": "noop"}),
        Step("PUT", "/proxies/p/toxics/noop_downstream", {}),
        Step("OPTIONS", "/proxies"),
        Step("OPTIONS", "/version"),
        get("/populate"),
        get("/reset"),
        delete("/reset"),
        post("/version"),
        get("/proxies", headers={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}),
        get("/version", headers={"User-Agent": "Mozilla/5.0"}),
        post("/reset", headers={"User-Agent": "Mozilla/"}),
        delete("/proxies/p", headers={"User-Agent": "Mozilla/5.0"}),
        get("/version", headers={"User-Agent": "mozilla/5.0"}),
        get("/version", headers={"User-Agent": "toxiproxy-cli/2.12.0 Mozilla/5.0"}),
        get("/proxies", headers={"User-Agent": "toxiproxy-cli/2.12.0 (linux/amd64)"}),
    ],
    "bodies": [
        # What curl -d says it sends; what .NET's client sends; and Go's, with all defaults.
        post(
            "/proxies",
            proxy("curl"),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        ),
        post("/proxies", proxy("chunked"), chunked=True),
        post("/proxies", proxy("typed"), headers={"Content-Type": "application/json"}),
        post(
            "/proxies",
            proxy("charset"),
            headers={"Content-Type": "application/json; charset=utf-8"},
        ),
        post("/proxies", proxy("text"), headers={"Content-Type": "text/plain"}),
        post("/proxies", proxy("wörds and spaces")),
        get("/proxies/w%C3%B6rds%20and%20spaces"),
        post("/proxies/w%C3%B6rds%20and%20spaces/toxics", {"type": "noop"}, chunked=True),
        get("/proxies/w%C3%B6rds%20and%20spaces/toxics/noop_downstream"),
        delete("/proxies/w%C3%B6rds%20and%20spaces"),
        get("/proxies", headers={"Content-Type": "application/json", "Accept": "text/html"}),
        post("/reset", "", headers={"Content-Type": "application/json"}),
        get("/proxies"),
    ],
    "metrics": [
        post("/proxies", proxy()),
        Talk("one", "127.0.0.1:{port1}", end=True),
        Talk("two", "127.0.0.1:{port1}", end=True),
        post("/proxies", proxy("q", upstream="{B}")),
        Talk("three", "127.0.0.1:{port2}", end=True),
        get("/metrics"),
    ],
    **{f"client_{name}": client.script() for name, client in CLIENTS.items()},
    **CONTAINERS,
}
