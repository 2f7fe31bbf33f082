"""The dashboard as Grafana imports it, made with Grafana's own library. Pure."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from toolchain.day_two.dashboard.panels import Panel

SOURCE = "source"
"""The variable by which whoever imports it chooses a Prometheus."""

REFRESH = "30s"
_UID = re.compile("[A-Za-z0-9_-]{1,40}")

SPAN, HEIGHT = 8, 7
"""Of one panel, in units of Grafana's grid, which is 24 wide."""


def dashboard_json(stack: str, panels: Sequence[Panel]) -> str:
    """Write the dashboard of a stack."""
    made = (
        dashboard.Dashboard(f"vast-vllm {stack}")
        .uid(uid(stack))
        .tags(["vast-vllm", stack])
        .refresh(REFRESH)
        .time("now-1h", "now")
        .with_variable(dashboard.DatasourceVariable(SOURCE).type("prometheus"))
    )
    numbers = itertools.count(1)
    for row, within in itertools.groupby(panels, key=lambda panel: panel.row):
        made = made.with_row(dashboard.Row(row))
        for panel in within:
            made = made.with_panel(_panel(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build())


def uid(stack: str) -> str:
    """Name a stack's dashboard in Grafana, which takes letters, digits, `-` and `_`, 40 at most."""
    name = f"vast-vllm-{stack}"
    if _UID.fullmatch(name):
        return name
    digest = hashlib.sha256(stack.encode()).hexdigest()[:8]
    return f"{re.sub('[^A-Za-z0-9_-]+', '-', name)[:31]}-{digest}"


def _panel(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(panel.title)
        .unit(panel.unit)
        .span(SPAN)
        .height(HEIGHT)
        .min(0)
        .datasource(DataSourceRef(type_val="prometheus", uid=f"${{{SOURCE}}}"))
        .legend(common.VizLegendOptions().show_legend(True))
    )
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        asked = prometheus.Dataquery().expr(query.expression).legend_format(query.legend)
        made = made.with_target(asked.ref_id(letter))
    return made
