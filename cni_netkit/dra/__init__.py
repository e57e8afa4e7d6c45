"""The DRA driver: queues of prepared NICs as resources of Kubernetes (resource.k8s.io/v1)."""
