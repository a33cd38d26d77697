"""*Reactivation*: who falls silent, and who comes back."""

from kit import COUNT, JOB, RATIO, WINDOW, WINDOWS, board, lines, meaningful, number, ratio, total, whole

W = "retentiond_window_"


def status(name):
    return whole(total("retentiond_customers", "", f'{JOB},status="{name}"'))


def passages(source, to):
    return f'sum (increase(retentiond_transitions_total{{{JOB},from="{source}",to="{to}"}}[$__rate_interval]))'


def now():
    back = f"{total(f'{W}reactivated_customers')} / ({total(f'{W}end_customers')} > 0)"
    return [
        number("Active", "Customers whose last order is recent, by their own pace.", COUNT, status("active")),
        number("At risk", "Customers who have been silent for longer than is usual for them, and are not lapsed yet.", COUNT, status("at_risk"), steps=[(None, "orange")]),
        number("Lapsed", "Customers without an order in the time for which an order keeps a customer.", COUNT, status("lapsed")),
        number("Came back", "Customers who are active at the end of the window, were not at its start, and are not new. Needs the whole history.", COUNT,
               whole(meaningful(total(f"{W}reactivated_customers"), f"{W}new_complete")), steps=[(None, "green")]),
        number("Of the active ones", "Those who came back by all who are active at the end of the window.", RATIO, whole(meaningful(back, f"{W}new_complete")), decimals=1),
        number("Lost complainers", "The share of the lost customers who had complained before.", RATIO,
               whole(meaningful(ratio(f"{W}lost_complainers", f"{W}lost_customers"))), decimals=1),
    ]


def flow():
    return [
        lines("Status", "Customers by status; together all who ever ordered.", COUNT,
              [(whole(total("retentiond_customers", "status", f'{JOB},status!="none"')), "{{status}}")], width=12, stacked=True),
        lines("At risk by stage", "Customers at risk: the loyal ones are those to win back first.", COUNT,
              [(whole(total("retentiond_customers", "stage", f'{JOB},status="at_risk"')), "{{stage}}")], width=12, stacked=True),
        lines("Falling silent", "Passages of customers that became certain lately: from active to at risk, and on to lapsed.", COUNT,
              [(passages("active", "at_risk"), "became at risk"), (passages("at_risk", "lapsed"), "lapsed")], width=12, bars=True),
        lines("Coming back", "Passages of customers that became certain lately: an order of somebody at risk, and of somebody lapsed.", COUNT,
              [(passages("at_risk", "active"), "in time"), (passages("lapsed", "active"), "after having lapsed")], width=12, bars=True),
    ]


def reasons():
    return [
        lines("Reactivated customers", "Customers who came back in the window after having been inactive at its start, beside those who were lost.", COUNT,
              [(whole(total(f"{W}reactivated_customers")), "reactivated"), (whole(total(f"{W}lost_customers")), "lost")], width=12),
        lines("Feedback", "Feedback by kind, per second.", "cps",
              [(f"sum by (kind) (rate(retentiond_feedback_total{{{JOB}}}[$__rate_interval]))", "{{kind}}")], width=12),
    ]


def dashboard():
    return board(
        "retentiond-reactivation",
        "Reactivation",
        "Who falls silent, who comes back, and what may be the reason.",
        [WINDOWS],
        [("Now: $window", now()), ("Silence and return", flow()), ("What may be the reason", reasons())],
    )
