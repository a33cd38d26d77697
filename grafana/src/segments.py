"""*Cohorts and segments*: customers by origin and by age."""

from kit import COUNT, DIMENSIONS, JOB, MONEY, RATIO, SECONDS, SEGMENT, WINDOWS, board, grid, lines, quantile, ranking, ratio, total, whole, words

S = "retentiond_segment_"

COMPLETE = f' and on () (min(retentiond_window_complete{{{JOB},window="$window"}}) == 1)'
CHURN = f"({ratio(f'{S}lost_customers', f'{S}start_customers', 'value', SEGMENT)}){COMPLETE}"
RETENTION = f"({ratio(f'{S}retained_customers', f'{S}start_customers', 'value', SEGMENT)}){COMPLETE}"
REPEAT = ratio(f"{S}repeat_customers", f"{S}ordering_customers", "value", SEGMENT)


def of_value(part):
    return total(f"{S}{part}", "value", SEGMENT)


COHORTS = """Customers by the month of their first order, and their activity in each month since, form a triangle rather than a
series: `/api/v1/cohorts` of a replica returns it as JSON. Over several replicas, add the cells: they count customers, orders and
revenue."""


def segments():
    return [
        grid(
            "Values of $dimension",
            "Figures of the window for each value of the dimension. A customer belongs to the value of the earliest order.",
            "value",
            [
                (whole(of_value("start_customers")), "at the start", COUNT),
                (whole(of_value("lost_customers")), "lost", COUNT),
                (whole(CHURN), "churn", RATIO),
                (whole(RETENTION), "retention", RATIO),
                (whole(of_value("new_customers")), "new", COUNT),
                (whole(of_value("reactivated_customers")), "reactivated", COUNT),
                (whole(of_value("ordering_customers")), "ordering", COUNT),
                (whole(REPEAT), "repeat rate", RATIO),
                (whole(of_value("orders")), "orders", COUNT),
            ],
        ),
        lines("Churn by $dimension", "Lost customers / customers at the start.", RATIO, [(whole(CHURN), "{{value}}")], width=12, low=0),
        lines("Repeat rate by $dimension", "Share of the ordering customers with at least two orders in the window.", RATIO, [(whole(REPEAT), "{{value}}")], width=12, low=0),
        lines("Active customers by $dimension", "Customers at the end of the window.", COUNT, [(whole(of_value("end_customers")), "{{value}}")], stacked=True),
        lines("New customers by $dimension", "Customers whose first order is in the window.", COUNT, [(whole(of_value("new_customers")), "{{value}}")], stacked=True),
        ranking("Lost customers by $dimension", "Customers at the start who are lost, as of now.", COUNT, whole(of_value("lost_customers")), "{{value}}"),
        lines("Average order value by $dimension", "Revenue / orders, in each currency.", MONEY,
              [(whole(ratio(f"{S}revenue", f"{S}currency_orders", "value, currency", SEGMENT)), "{{value}} {{currency}}")], width=12),
        lines("Revenue by $dimension", "Revenue of the orders in the window, in each currency.", MONEY,
              [(whole(total(f"{S}revenue", "value, currency", SEGMENT)), "{{value}} {{currency}}")], width=12),
    ]


def cohorts():
    gaps, second = "retentiond_interpurchase_seconds", "retentiond_time_to_second_order_seconds"
    return [
        lines("New customers of calendar periods", "Customers whose first order is in the open month, quarter or year: the cohorts that are growing.", COUNT,
              [(whole(total("retentiond_window_new_customers", "window", f'{JOB},window=~"month|quarter|year"')), "{{window}}")]),
        lines("Time to the second order", "Time within which half and nine tenths of the repeat customers placed their second order, over the whole history.", SECONDS,
              [(quantile(0.5, second), "half"), (quantile(0.9, second), "nine tenths")], low=0),
        lines("Time between orders", "Length of half and nine tenths of all gaps between orders at most, over the whole history.", SECONDS,
              [(quantile(0.5, gaps), "half"), (quantile(0.9, gaps), "nine tenths")], low=0),
        lines("Stages", "Customers by stage: seen without an order, one order, several, loyal.", COUNT,
              [(whole(total("retentiond_customers", "stage", JOB)), "{{stage}}")], stacked=True),
        lines("Order values", "Amount of half and nine tenths of all orders at most, over the whole history.", MONEY,
              [(f"histogram_quantile({q}, sum by (currency, le) (retentiond_order_value_bucket{{{JOB}}}))", f"{{{{currency}}}} {name}") for q, name in ((0.5, "half"), (0.9, "nine tenths"))]),
        words("Cohort triangle", "Where to find the cohorts by month of first order.", COHORTS),
    ]


def dashboard():
    return board(
        "retentiond-segments",
        "Cohorts and segments",
        "Which customers stay and which leave, by an attribute of their first order and by their stage.",
        [WINDOWS, DIMENSIONS],
        [("Segments: $dimension, $window", segments()), ("Cohorts", cohorts())],
    )
