"""*Cohorts and segments*: which customers, by where they came from and by how long they have been there."""

from kit import COUNT, DIMENSIONS, JOB, MONEY, RATIO, SECONDS, SEGMENT, WINDOWS, board, grid, lines, quantile, ranking, ratio, total, whole, words

S = "retentiond_segment_"

COMPLETE = f' and on () (min(retentiond_window_complete{{{JOB},window="$window"}}) == 1)'
CHURN = f"({ratio(f'{S}lost_customers', f'{S}start_customers', 'value', SEGMENT)}){COMPLETE}"
RETENTION = f"({ratio(f'{S}retained_customers', f'{S}start_customers', 'value', SEGMENT)}){COMPLETE}"
REPEAT = ratio(f"{S}repeat_customers", f"{S}ordering_customers", "value", SEGMENT)


def of_value(part):
    return total(f"{S}{part}", "value", SEGMENT)


COHORTS = """Customers by the month of their first order, and what they did in each month since, are a triangle rather than a
series: `/api/v1/cohorts` of a replica answers it as JSON. Over several replicas add the cells, which count customers, orders and
revenue."""


def segments():
    return [
        grid(
            "Values of $dimension",
            "The figures of the window for each value of the dimension; a customer belongs to the value of the earliest order.",
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
        lines("Churn by $dimension", "Lost customers by customers at the start.", RATIO, [(whole(CHURN), "{{value}}")], width=12, low=0),
        lines("Repeat rate by $dimension", "The share of the ordering customers who ordered at least twice in the window.", RATIO, [(whole(REPEAT), "{{value}}")], width=12, low=0),
        lines("Active customers by $dimension", "Customers at the end of the window.", COUNT, [(whole(of_value("end_customers")), "{{value}}")], stacked=True),
        lines("New customers by $dimension", "Customers whose first order lies in the window.", COUNT, [(whole(of_value("new_customers")), "{{value}}")], stacked=True),
        ranking("Lost customers by $dimension", "Customers at the start who are lost, as of now.", COUNT, whole(of_value("lost_customers")), "{{value}}"),
        lines("Average order value by $dimension", "Revenue by orders, in each currency.", MONEY,
              [(whole(ratio(f"{S}revenue", f"{S}currency_orders", "value, currency", SEGMENT)), "{{value}} {{currency}}")], width=12),
        lines("Revenue by $dimension", "What the orders in the window brought, in each currency.", MONEY,
              [(whole(total(f"{S}revenue", "value, currency", SEGMENT)), "{{value}} {{currency}}")], width=12),
    ]


def cohorts():
    gaps, second = "retentiond_interpurchase_seconds", "retentiond_time_to_second_order_seconds"
    return [
        lines("New customers of calendar periods", "Customers whose first order lies in the open month, quarter and year: the cohorts that are growing.", COUNT,
              [(whole(total("retentiond_window_new_customers", "window", f'{JOB},window=~"month|quarter|year"')), "{{window}}")]),
        lines("Time to the second order", "Within how long a half and nine tenths of those who ordered a second time did so, over the whole history.", SECONDS,
              [(quantile(0.5, second), "half"), (quantile(0.9, second), "nine tenths")], low=0),
        lines("Time between orders", "How long a half and nine tenths of all gaps between orders last, over the whole history.", SECONDS,
              [(quantile(0.5, gaps), "half"), (quantile(0.9, gaps), "nine tenths")], low=0),
        lines("Stages", "Customers by stage: seen without an order, one order, several, loyal.", COUNT,
              [(whole(total("retentiond_customers", "stage", JOB)), "{{stage}}")], stacked=True),
        lines("Order values", "What a half and nine tenths of all orders brought at most, over the whole history.", MONEY,
              [(f"histogram_quantile({q}, sum by (currency, le) (retentiond_order_value_bucket{{{JOB}}}))", f"{{{{currency}}}} {name}") for q, name in ((0.5, "half"), (0.9, "nine tenths"))]),
        words("Cohort triangle", "Where the cohorts by month of first order are.", COHORTS),
    ]


def dashboard():
    return board(
        "retentiond-segments",
        "Cohorts and segments",
        "Which customers stay and which leave, by an attribute of their first order and by their stage.",
        [WINDOWS, DIMENSIONS],
        [("Segments: $dimension, $window", segments()), ("Cohorts", cohorts())],
    )
