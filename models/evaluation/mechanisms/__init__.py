"""One mechanism a file, all on the same policy; `catalogue` builds them by name."""
