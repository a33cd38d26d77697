"""*Retention overview*: for the people who look after customers rather than servers."""

from kit import COUNT, JOB, MONEY, RATIO, WINDOW, WINDOWS, board, lines, meaningful, number, ratio, total, whole
from grafana_foundation_sdk.models import units

W = "retentiond_window_"

CHURN = meaningful(ratio(f"{W}lost_customers", f"{W}start_customers"))
RETENTION = meaningful(ratio(f"{W}retained_customers", f"{W}start_customers"))
CRR = meaningful(
    f"({total(f'{W}end_customers')} - {total(f'{W}new_customers')}) / ({total(f'{W}start_customers')} > 0)",
    f"{W}new_complete",
)
REPEAT = ratio(f"{W}repeat_customers", f"{W}ordering_customers")
ORDER_VALUE = ratio(f"{W}revenue", f"{W}currency_orders", "currency")
NET_REVENUE = " - ".join(total(f"{W}{part}", "currency") for part in ("revenue", "refunds", "cancellations"))
NET_ORDER_VALUE = f"({NET_REVENUE}) / ({total(f'{W}currency_orders', 'currency')} > 0)"
# Weighted by each replica's ordering customers; exact for one replica.
CLV = (
    f"sum by (currency) ({W}clv{{{JOB}}} * on (job, instance, window) group_left () {W}ordering_customers{{{JOB}}})"
    f" / (sum by (currency) ({W}clv{{{JOB}}} * 0 + on (job, instance, window) group_left () {W}ordering_customers{{{JOB}}}) > 0)"
)


def now():
    return [
        number("Churn", "Share of the customers active at the start of the window who are no longer active.", RATIO, whole(CHURN), decimals=1),
        number("Retention", "Share of the customers active at the start of the window who still are.", RATIO, whole(RETENTION), decimals=1),
        number("Repeat rate", "Share of the ordering customers with at least two orders in the window.", RATIO, whole(REPEAT), decimals=1),
        number("Average order value", "Revenue / orders, in each currency.", MONEY, whole(ORDER_VALUE), legend="{{currency}}", decimals=2),
        number("Active customers", "Customers at the end of the window, with an order within active_for.", COUNT, whole(total(f"{W}end_customers"))),
        number(
            "Figures can be trusted",
            "Whether the data reach back far enough for churn, every partition has an owner, and every replica has caught up.",
            units.Short,
            f"min({W}complete{{{WINDOW}}}) * min(retentiond_caught_up{{{JOB}}})"
            f" * (sum(retentiond_partitions_assigned{{{JOB}}}) == bool sum(max by (job) (retentiond_source_partitions{{{JOB}}})))",
            mappings={0: ("not yet", "orange"), 1: ("yes", "green")},
            graph=False,
        ),
    ]


def churn():
    return [
        lines(
            "Churn and retention",
            "Shares of the customers at the start who are lost and who stay. The classic retention rate counts customers who came back as kept, and needs the whole history.",
            RATIO,
            [(whole(CHURN), "churn"), (whole(RETENTION), "retention"), (whole(CRR), "retention, classic")],
            width=12,
            low=0,
        ),
        lines(
            "Churn of every window",
            "Rolling windows, open calendar periods and the last closed ones, if their data reach back far enough.",
            RATIO,
            [
                (
                    whole(
                        f"{ratio(f'{W}lost_customers', f'{W}start_customers', 'window', JOB)}"
                        f" and on (window) (min by (window) ({W}complete{{{JOB}}}) == 1)"
                    ),
                    "{{window}}",
                )
            ],
            width=12,
            low=0,
        ),
    ]


def customers():
    return [
        lines("Customers at start and end", "Active customers when the window began and when it ended.", COUNT,
              [(whole(total(f"{W}start_customers")), "at the start"), (whole(total(f"{W}end_customers")), "at the end")]),
        lines("What became of them", "Customers who stayed, left, came back after being inactive, and ordered for the first time.", COUNT,
              [(whole(total(f"{W}{part}_customers")), part) for part in ("retained", "lost", "reactivated", "new")]),
        lines("Who orders", "Customers with an order in the window, with two or more in it, with two or more ever, and with a session.", COUNT,
              [(whole(total(f"{W}{part}_customers")), part) for part in ("ordering", "repeat", "returning", "visiting")]),
        lines("Repeat, returning and conversion", "Repeat / ordering and returning / ordering customers; ordering / visiting customers, which may exceed 100 %.", RATIO,
              [(whole(REPEAT), "repeat"),
               (whole(ratio(f"{W}returning_customers", f"{W}ordering_customers")), "returning"),
               (whole(ratio(f"{W}ordering_customers", f"{W}visiting_customers")), "conversion")], low=0),
        lines("Purchase frequency", "Orders / ordering customers.", units.Short,
              [(whole(ratio(f"{W}orders", f"{W}ordering_customers")), "orders per customer")]),
        lines("Referrals", "Referred new customers / new customers.", RATIO,
              [(whole(ratio(f"{W}referred_customers", f"{W}new_customers")), "referred")], low=0),
    ]


def money():
    return [
        lines("Revenue", "Revenue of the orders in the window, in each currency.", MONEY,
              [(whole(total(f"{W}revenue", "currency")), "{{currency}}")]),
        lines("Refunds and cancellations", "Money returned in the window, whenever the order was.", MONEY,
              [(whole(total(f"{W}refunds", "currency")), "{{currency}} refunds"),
               (whole(total(f"{W}cancellations", "currency")), "{{currency}} cancellations")]),
        lines("Average order value", "Revenue / orders, and the same minus refunds and cancellations.", MONEY,
              [(whole(ORDER_VALUE), "{{currency}}"), (whole(NET_ORDER_VALUE), "{{currency}} net")]),
        lines("Customer lifetime value", "For the window clv.window, once its data reach back far enough: net revenue / ordering customers x lifespan / period. Values of several replicas are weighted by ordering customers.", MONEY,
              [(whole(CLV), "{{currency}}")]),
        lines("Costs", "Costs of acquiring and of retaining customers in the window.", MONEY,
              [(whole(total(f"{W}acquisition_costs", "currency")), "{{currency}} acquisition"),
               (whole(total(f"{W}retention_costs", "currency")), "{{currency}} retention")]),
        lines("Orders and sessions", "Orders, cancelled ones included, and sessions in the window.", COUNT,
              [(whole(total(f"{W}orders")), "orders"), (whole(total(f"{W}sessions")), "sessions")]),
    ]


def dashboard():
    return board(
        "retentiond-overview",
        "Retention overview",
        "Churn, retention, repeat orders and money of one window, over all replicas.",
        [WINDOWS],
        [("Now: $window", now()), ("Churn and retention", churn()), ("Customers", customers()), ("Money and volume", money())],
    )
