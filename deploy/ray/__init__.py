"""The service on Ray Serve: many replicas of the same application behind one address."""
