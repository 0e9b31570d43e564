"""The front of score against cost, over one study or several budgets."""
