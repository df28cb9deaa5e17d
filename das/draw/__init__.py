"""Pictures of people, from above, and of what the network computes."""
