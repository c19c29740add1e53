"""What is kept, in any server that speaks Redis's protocol; the only place that imports redis.

No redis exception leaves this package: what fails is `StoreUnavailable`.
"""
