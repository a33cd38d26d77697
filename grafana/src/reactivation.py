"""*Reactivation*: customers who fall silent, and customers who come back."""

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
        number("At risk", "Customers who have been silent for longer than usual for them, but have not lapsed.", COUNT, status("at_risk"), steps=[(None, "orange")]),
        number("Lapsed", "Customers without an order within active_for.", COUNT, status("lapsed")),
        number("Came back", "Customers who are active at the end of the window, were inactive at its start, and are not new. Needs the whole history.", COUNT,
               whole(meaningful(total(f"{W}reactivated_customers"), f"{W}new_complete")), steps=[(None, "green")]),
        number("Of the active ones", "Customers who came back / active customers at the end of the window.", RATIO, whole(meaningful(back, f"{W}new_complete")), decimals=1),
        number("Lost complainers", "Share of the lost customers who had complained before.", RATIO,
               whole(meaningful(ratio(f"{W}lost_complainers", f"{W}lost_customers"))), decimals=1),
    ]


def flow():
    return [
        lines("Status", "Customers by status; together, all customers with an order.", COUNT,
              [(whole(total("retentiond_customers", "status", f'{JOB},status!="none"')), "{{status}}")], width=12, stacked=True),
        lines("At risk by stage", "Customers at risk: win back the loyal ones first.", COUNT,
              [(whole(total("retentiond_customers", "stage", f'{JOB},status="at_risk"')), "{{stage}}")], width=12, stacked=True),
        lines("Falling silent", "Transitions from active to at risk, and from at risk to lapsed, once they are final.", COUNT,
              [(passages("active", "at_risk"), "became at risk"), (passages("at_risk", "lapsed"), "lapsed")], width=12, bars=True),
        lines("Coming back", "Orders of customers at risk and of lapsed customers, once they are final.", COUNT,
              [(passages("at_risk", "active"), "in time"), (passages("lapsed", "active"), "after having lapsed")], width=12, bars=True),
    ]


def campaign():
    def lately(metric, by):
        return f"sum by ({by}) (increase(retentiond_{metric}{{{JOB}}}[$__rate_interval]))"

    return [
        lines("Silences", "Silences that were due, of customers who are alerted (treated) and of those held out (holdout).", COUNT,
              [(lately("inactivity_due_total", "rule, group"), "{{rule}} {{group}}")], bars=True),
        lines("Alerts", "Alerts on the alert topic, by rule.", COUNT, [(lately("inactivity_alerts_total", "rule"), "{{rule}}")], bars=True),
        lines("Alerts that wait", "Alerts that are decided but not sent: they wait for the next checkpoint, for quiet hours or for the limit per minute.", COUNT,
              [(f"sum(retentiond_inactivity_alerts_waiting{{{JOB}}})", "waiting")], low=0),
        lines("Won back", "Silences ended by an order in time, of alerted and of held-out customers.", COUNT,
              [(lately("winbacks_total", "rule, group"), "{{rule}} {{group}}")], bars=True),
        lines("Win-back rate", "Win-backs / silences over 30 days. The difference between treated and holdout is the effect of the alerts.", RATIO,
              [(f"avg by (rule, group) (job_rule_group:retentiond_winbacks:ratio30d{{{JOB}}})", "{{rule}} {{group}}")], low=0),
        lines("Revenue of win-backs", "Revenue of the orders that ended silences, by rule, group and currency.", MONEY,
              [(lately("winback_revenue_total", "rule, group, currency"), "{{rule}} {{group}} {{currency}}")], bars=True),
        lines("What alerts achieve", "Win-back rate of alerted customers minus that of held-out customers, over 30 days. Needs alerts.holdout.", RATIO,
              [(f"avg by (rule) (job_rule:retentiond_winbacks:uplift30d{{{JOB}}})", "{{rule}}")], width=12),
    ]


def reasons():
    return [
        lines("Reactivated customers", "Customers who came back in the window after being inactive at its start, and lost customers.", COUNT,
              [(whole(total(f"{W}reactivated_customers")), "reactivated"), (whole(total(f"{W}lost_customers")), "lost")], width=12),
        lines("Feedback", "Feedback by kind, per second.", "cps",
              [(f"sum by (kind) (rate(retentiond_feedback_total{{{JOB}}}[$__rate_interval]))", "{{kind}}")], width=12),
    ]


def dashboard():
    return board(
        "retentiond-reactivation",
        "Reactivation",
        "Customers who fall silent, customers who come back, and possible reasons.",
        [WINDOWS],
        [("Now: $window", now()), ("Silence and return", flow()), ("Alerts and win-back", campaign()), ("What may be the reason", reasons())],
    )
