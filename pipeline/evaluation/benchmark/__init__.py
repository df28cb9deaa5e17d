"""`das benchmark`: latency, throughput, memory and cost of a model."""
