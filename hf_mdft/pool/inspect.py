"""What a pool is: for people and for programs."""

from __future__ import annotations

from typing import Any

from ..core.tables import text_table
from .download import bytes_to_fetch, size_text
from .geometry import Geometry
from .manifest import ModelPool


def facts(pool: ModelPool, shape: Geometry | None = None) -> dict[str, Any]:
    """A pool in JSON form: models with revisions, sizes and licenses, what is to be downloaded, and, where it was
    computed, the geometry of task vectors."""
    license = pool.license()
    models = [
        {
            "task": name.split("/")[0],
            "expert": None if source is pool.base else name,
            **source.reference.to_dict(),
            "bytes": sum(source.weights.values()),
            "bytes_to_download": sum(source.missing().values()),
            "license": source.license,
        }
        for name, source in [("base", pool.base), *pool.experts.items()]
    ]
    found = {
        "architecture": pool.architecture.name,
        "models": models,
        "tasks_without_expert": [task for task in pool.tasks if not pool.experts_of(task)],
        "bytes_to_download": bytes_to_fetch(pool.sources()),
        "license": license.name,
        "license_problems": list(license.problems),
    }
    if shape is not None:
        found["relative_norms"] = dict(zip(shape.experts, shape.norms, strict=True))
        found["cosines"] = {
            task: dict(zip(shape.experts, row, strict=True))
            for task, row in zip(shape.experts, shape.cosines, strict=True)
        }
    return found


def listing(pool: ModelPool) -> str:
    """A pool as text: models, sizes, what is to be downloaded, licenses."""
    found = facts(pool)
    rows = [
        [
            model["expert"] or "base",
            model["id"],
            model["revision"].removeprefix("sha256:")[:12],
            model["license"] or "-",
            size_text(model["bytes"]),
            size_text(model["bytes_to_download"]) if model["bytes_to_download"] else "-",
        ]
        for model in found["models"]
    ]
    rows += [[task, "no expert", "", "", "", ""] for task in found["tasks_without_expert"]]
    lines = [text_table(["expert", "model", "revision", "license", "size", "to download"], rows, left=4), ""]
    lines.append(f"To download: {size_text(found['bytes_to_download']) if found['bytes_to_download'] else 'nothing'}")
    lines.append(f"License of what is made from it: {found['license'] or 'none is stated'}")
    lines += [f"  {problem}" for problem in found["license_problems"]]
    return "\n".join(lines)


def geometry_text(shape: Geometry) -> str:
    """Norms and cosines of task vectors as text."""
    rows = [
        [task, f"{norm:.4f}", *(f"{value:.2f}" for value in row)]
        for task, norm, row in zip(shape.experts, shape.norms, shape.cosines, strict=True)
    ]
    return "Task vectors: norm relative to the base's, and cosines\n" + text_table(
        ["expert", "|tau|/|theta_0|", *shape.experts], rows
    )
