"""What people would build or take instead, written as a competent user would: each package says why it is fair.

Small real projects with command lines of their own, which ``benchmarks.yardsticks`` starts. They import nothing of ours.
"""
