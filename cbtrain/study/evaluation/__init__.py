"""What ``evaluate`` and the commands on scores do, in order: simulate, score, analyse, report."""
