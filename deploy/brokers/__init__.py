"""Real brokers on this machine, for tests and beside the functions of the embedded OpenFaaS: Kafka, NATS, Redis."""
