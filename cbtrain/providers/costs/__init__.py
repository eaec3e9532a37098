"""Costs of requests, and the budget for them."""
