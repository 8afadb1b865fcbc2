"""Events from Kafka on one core: this project's consumer beside bare aiokafka loops and FastStream."""
