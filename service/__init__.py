"""The online path: HTTP, ads and money. Knows nothing of torch, transformers or vLLM."""
