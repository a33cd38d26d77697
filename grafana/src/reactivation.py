"""*Reactivation*: who falls silent, and who comes back."""

from kit import COUNT, JOB, MONEY, RATIO, WINDOW, WINDOWS, board, lines, meaningful, number, ratio, total, whole

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


def campaign():
    def lately(metric, by):
        return f"sum by ({by}) (increase(retentiond_{metric}{{{JOB}}}[$__rate_interval]))"

    return [
        lines("Silences", "Customers who were found silent by a rule, of those who are alerted (treated) and of those who never are (holdout).", COUNT,
              [(lately("inactivity_due_total", "rule, group"), "{{rule}} {{group}}")], bars=True),
        lines("Alerts", "Alerts on the alert topic, by rule.", COUNT, [(lately("inactivity_alerts_total", "rule"), "{{rule}}")], bars=True),
        lines("Alerts that wait", "Decided and not on the alert topic yet: until the next checkpoint, for quiet hours or for the limit a minute.", COUNT,
              [(f"sum(retentiond_inactivity_alerts_waiting{{{JOB}}})", "waiting")], low=0),
        lines("Won back", "Silences that an order ended in time, of the alerted and of those who never are.", COUNT,
              [(lately("winbacks_total", "rule, group"), "{{rule}} {{group}}")], bars=True),
        lines("Win-back rate", "Win-backs by silences over 30 days. What the alerts achieve is the distance between treated and holdout.", RATIO,
              [(f"avg by (rule, group) (job_rule_group:retentiond_winbacks:ratio30d{{{JOB}}})", "{{rule}} {{group}}")], low=0),
        lines("Revenue of win-backs", "What the orders brought that ended silences, by rule, group and currency.", MONEY,
              [(lately("winback_revenue_total", "rule, group, currency"), "{{rule}} {{group}} {{currency}}")], bars=True),
        lines("What alerts achieve", "How many more of the alerted come back than of those who never are, over 30 days; needs alerts.holdout.", RATIO,
              [(f"avg by (rule) (job_rule:retentiond_winbacks:uplift30d{{{JOB}}})", "{{rule}}")], width=12),
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
        [("Now: $window", now()), ("Silence and return", flow()), ("Alerts and win-back", campaign()), ("What may be the reason", reasons())],
    )
