"""The parts that all dashboards are made of: variables, panels, and the queries that add up the replicas.

A query sums the parts of all replicas before it divides, as the recording rules do, but over the metrics themselves: so it also
shows a history that was imported, and works without rules. Where rules say that a partition has no owner or a replica has yet to
catch up, it shows nothing (`whole`).
"""

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.models import common as styles
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

JOB = 'job=~"$job"'
INSTANCE = f'{JOB},instance=~"$instance"'
WINDOW = f'{JOB},window="$window"'
SEGMENT = f'{WINDOW},dimension="$dimension"'

# Money is shown without a symbol: the legend names the currency.
MONEY = units.Short
COUNT = units.Short
RATIO = units.PercentUnit
SECONDS = units.Seconds
BYTES = units.BytesIEC

# Queries ---------------------------------------------------------------------------------------------------------------


def whole(query: str) -> str:
    """The query, or nothing while the replicas together are known not to hold all customers."""
    return f"({query}) unless on () (job:retentiond_whole:bool{{{JOB}}} == 0)"


def total(metric: str, by: str = "", labels: str = WINDOW) -> str:
    """The sum over the replicas, of each value of the labels `by`."""
    return f"sum{f' by ({by})' if by else ''} ({metric}{{{labels}}})"


def ratio(above: str, below: str, by: str = "", labels: str = WINDOW) -> str:
    """Sum over sum; nothing where the lower one is zero."""
    return f"{total(above, by, labels)} / ({total(below, by, labels)} > 0)"


def meaningful(query: str, flag: str = "retentiond_window_complete", labels: str = WINDOW) -> str:
    """The query, or nothing while the data do not reach back far enough for it to mean something."""
    return f"({query}) and on () (min({flag}{{{labels}}}) == 1)"


def rate(metric: str, by: str = "", labels: str = JOB) -> str:
    """How fast a counter grows, per second, over the replicas."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(q: float, histogram: str, labels: str = JOB, recent: bool = False) -> str:
    """A quantile of a histogram: of all that it ever counted, or of what came lately."""
    buckets = f"{histogram}_bucket{{{labels}}}"
    return f"histogram_quantile({q}, sum by (le) ({f'rate({buckets}[$__rate_interval])' if recent else buckets}))"


# Panels ----------------------------------------------------------------------------------------------------------------


def targets(panel, queries, instant=False, as_table=False):
    """Adds `(query, legend)` pairs to a panel, as targets A, B, ..."""
    for letter, (expr, legend) in zip("ABCDEFGHIJ", queries, strict=False):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(letter).datasource(SOURCE)
        query = query.instant() if instant else query.range()
        if as_table:
            query = query.format(PromQueryFormat.TABLE)
        panel = panel.with_target(query)
    return panel


def lines(title, description, unit, queries, *, width=8, height=8, stacked=False, low=None, high=None, bars=False):
    """Figures over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .line_width(2)
        .fill_opacity(25 if stacked else 8)
        .show_points(styles.VisibilityMode.NEVER)
        .draw_style(styles.GraphDrawStyle.BARS if bars else styles.GraphDrawStyle.LINE)
        .legend(
            common.VizLegendOptions()
            .display_mode(styles.LegendDisplayMode.LIST)
            .placement(styles.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(styles.TooltipDisplayMode.MULTI).sort(styles.SortOrder.DESCENDING))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(styles.StackingMode.NORMAL))
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    return targets(panel, queries)


def number(title, description, unit, query, *, legend="", width=4, height=4, decimals=None, steps=None, mappings=None, graph=True):
    """One figure as it stands. `steps`: `(from this value on, colour)`, the first from `None`."""
    coloured = steps or [(None, "text")]
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .graph_mode(styles.BigValueGraphMode.AREA if graph else styles.BigValueGraphMode.NONE)
        .color_mode(styles.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(models.ThresholdsMode.ABSOLUTE)
            .steps([models.Threshold(value=value, color=color) for value, color in coloured])
        )
        .no_value("not known yet")
    )
    if decimals is not None:
        panel = panel.decimals(decimals)
    if mappings:
        panel = panel.mappings([value_names(mappings)])
    return targets(panel, [(query, legend)])


def value_names(names):
    """`{value: (text, colour)}` as a mapping."""
    options = {
        str(value): models.ValueMappingResult(text=text_, color=color, index=index)
        for index, (value, (text_, color)) in enumerate(names.items())
    }
    return models.ValueMap(options=options)


def ranking(title, description, unit, query, legend, *, width=8, height=8):
    """One bar for each series, as they stand."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .min(0)
        .display_mode(styles.BarGaugeDisplayMode.BASIC)
        .orientation(styles.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(models.ThresholdsMode.ABSOLUTE)
            .steps([models.Threshold(value=None, color="blue")])
        )
    )
    return targets(panel, [(query, legend)], instant=True)


def grid(title, description, key, columns, *, width=24, height=9):
    """A table with a line for each value of the label `key`. `columns`: `(query, heading, unit)`."""
    panel = (
        table.Panel().title(title).description(description).datasource(SOURCE).unit(COUNT).span(width).height(height)
    )
    panel = targets(panel, [(query, heading) for query, heading, _ in columns], instant=True, as_table=True)
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="joinByField", options={"byField": key, "mode": "outer"}))
    renamed = {f"Value #{letter}": heading for letter, (_, heading, _) in zip("ABCDEFGHIJ", columns, strict=False)}
    hidden = {f"Time {i}": True for i in range(1, len(columns) + 1)} | {"Time": True}
    panel = panel.with_transformation(
        models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden, "renameByName": renamed})
    )
    for _, heading, unit in columns:
        panel = panel.override_by_name(heading, [models.DynamicConfigValue(id_val="unit", value=unit)])
    return panel


def words(title, description, markdown, *, width=8, height=8):
    """A panel of text."""
    return text.Panel().title(title).description(description).span(width).height(height).mode(TextMode.MARKDOWN).content(markdown)


# Dashboards ------------------------------------------------------------------------------------------------------------


def by_query(name, label, query, *, multi=False, everything=False, sort=models.VariableSort.ALPHABETICAL_ASC):
    """A variable whose values come from Prometheus, read again whenever the time range changes."""
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(sort)
        .multi(multi)
        .include_all(everything)
    )
    if everything:
        variable = variable.all_value(".+").current(models.VariableOption(selected=True, text="All", value="$__all"))
    return variable


DATASOURCE = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
# A job is a consumer group; several are several shops, whose figures are added.
JOBS = by_query("job", "Job", "label_values(retentiond_build_info, job)", multi=True, everything=True)
INSTANCES = by_query("instance", "Instance", f"label_values(retentiond_build_info{{{JOB}}}, instance)", multi=True, everything=True)
WINDOWS = by_query(
    "window",
    "Window",
    f"label_values(retentiond_window_start_customers{{{JOB}}}, window)",
    sort=models.VariableSort.NATURAL_ASC,
)
DIMENSIONS = by_query("dimension", "Dimension", f"label_values(retentiond_segment_start_customers{{{JOB}}}, dimension)")


def board(uid, title, description, variables, rows, *, since="now-30d", refresh="1m"):
    """A dashboard. `rows`: `(title, panels)`; panels fill lines of 24 columns from the left."""
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["retentiond"])
        .readonly()
        .version(1)
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .timezone("browser")
        .time(since, "now")
        .refresh(refresh)
        .link(
            dashboard.DashboardLink("retentiond")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["retentiond"])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
    )
    for variable in [DATASOURCE, JOBS, *variables]:
        built = built.with_variable(variable)
    for heading, panels in rows:
        built = built.with_row(dashboard.Row(heading))
        for panel in panels:
            built = built.with_panel(panel)
    return built.build()
