"""Engines: one generation at a time, streamed, that can be aborted. `interface` is what others see.

Importing this package loads neither vLLM nor torch; `vllm` does.
"""
