"""How the service is run for real: containers, Kubernetes, Ray, and what watches over it."""
