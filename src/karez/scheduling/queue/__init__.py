"""Who is next: the order of the queue, fair share between projects, and quotas.

It answers for one workload at a time and never looks at free devices (that is placement).
"""
