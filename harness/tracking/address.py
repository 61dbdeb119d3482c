"""Where somebody with a browser finds what was tracked.

What MLflow 3.17 opens an experiment on follows the `workflowType` of the address, then the one that the browser
remembers, else it is the traces of language models, whatever the experiment's tag says. So an address has to say it.
"""

import shlex
from urllib.parse import urlsplit

WORKFLOW = "?workflowType=machine_learning"
LOCAL = "http://127.0.0.1:5000"
"""Where `mlflow ui` answers that was not told otherwise."""


def page(uri: str, experiment: str, run: str = "") -> str:
    """The address of an experiment's runs, or of the curves of one; empty if unknown.

    Of a database with the command that serves it.
    """
    place = f"/#/experiments/{experiment}/runs{f'/{run}/model-metrics' if run else ''}{WORKFLOW}"
    if uri.startswith("http"):
        return f"{public(uri).rstrip('/')}{place}"
    if uri.startswith("databricks") or set("?%#") & set(uri):
        return ""
    return f"{LOCAL}{place} after mlflow ui --backend-store-uri {shlex.quote(public(uri))}"


def public(uri: str) -> str:
    """The URI without user and password."""
    parts = urlsplit(uri)
    return uri.replace(parts.netloc, parts.netloc.rpartition("@")[2]) if "@" in parts.netloc else uri
